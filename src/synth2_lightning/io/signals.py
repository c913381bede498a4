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

    Example:
        >>> before = signal.getsignal(signal.SIGTERM)
        >>> with keep_sigterm():
        ...     _ = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        >>> signal.getsignal(signal.SIGTERM) is before
        True
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        # Only the main thread may set handlers; None is a handler that was not set from Python.
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
