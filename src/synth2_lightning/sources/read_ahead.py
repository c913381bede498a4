"""Read in threads what a slow consumer will want next."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Content = TypeVar("Content")


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Content], num_threads: int = 2, num_ahead: int = 64
) -> Iterator[tuple[Item, Content | OSError]]:
    """Read items in their order, some of them before they are asked for.

    Threads, not processes: Pillow gives way to others while it decodes and resizes, and nothing is copied or pickled.

    Args:
        items: What to read; taken one by one as it is read.
        read: Reads one of them; called in any thread.
        num_threads: How many are read at a time.
        num_ahead: How many are kept ready, at most: what this costs in memory is as many results.

    Yields:
        Each item with what was read, or with the ``OSError`` that says why it was not: that there was not enough
        memory for it, too.

    Raises:
        ValueError: If a count is below one.

    Example:
        >>> [content for _, content in read_ahead([1, 2, 3], lambda item: item * 10)]
        [10, 20, 30]
    """
    if num_threads < 1 or num_ahead < 1:
        raise ValueError(f"read_ahead got num_threads={num_threads}, num_ahead={num_ahead}; expected 1 or more.")
    with ThreadPoolExecutor(num_threads, thread_name_prefix="read-ahead") as threads:
        running: deque[tuple[Item, Future[Content]]] = deque()
        try:
            for item in items:
                running.append((item, threads.submit(read, item)))
                if len(running) > num_ahead:
                    yield _take_first(running)
            while running:
                yield _take_first(running)
        finally:
            for _, future in running:  # whoever asks for no more does not wait for them
                future.cancel()


def _take_first(running: deque[tuple[Item, Future[Any]]]) -> tuple[Item, Any]:
    item, future = running.popleft()
    try:
        return item, future.result()
    except OSError as error:
        return item, error
    except MemoryError as error:  # which that one item asked for too much of: the others are read
        shortage = OSError(f"{item} cannot be read: it is more than the memory holds")
        shortage.__cause__ = error
        return item, shortage
