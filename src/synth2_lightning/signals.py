"""Leave the process as it was found."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keep_sigterm() -> Iterator[None]:
    """Give SIGTERM back to who had it before the context, whatever takes it within.

    What keeps it for good, as Ray and a page that is served do, would end a run that trains later in the same process,
    in the middle of a step.

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
        # Other threads may set none, and one that was not set from Python cannot be.
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
