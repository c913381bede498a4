"""Restoring of signal handlers."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keep_sigterm() -> Iterator[None]:
    """Restore the SIGTERM handler at the end of the context.

    Ray and web servers replace it permanently, which would kill later training in the same process in the middle of a
    step.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        # Only the main thread may set handlers; None is a handler that was not set from Python.
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
