"""Prefetching in threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Content = TypeVar("Content")


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Content], num_threads: int = 2, num_ahead: int = 64
) -> Iterator[tuple[Item, Content | OSError]]:
    """Yield items in order with their content, which threads prefetch.

    Threads suffice: Pillow releases the GIL while it decodes and resizes, and threads copy and pickle nothing.

    Args:
        items: Items to read, consumed lazily.
        read: Thread-safe function that reads one item.
        num_threads: Number of items read at the same time.
        num_ahead: Maximum number of prefetched results in memory.

    Yields:
        Each item with its content, or with the ``OSError`` that reading it raised; lack of memory is one too.

    Raises:
        ValueError: If a count is below 1.

    Example:
        >>> [content for _, content in read_ahead([1, 2, 3], lambda item: item * 10)]
        [10, 20, 30]
    """
    if num_threads < 1 or num_ahead < 1:
        raise ValueError(f"read_ahead got num_threads={num_threads}, num_ahead={num_ahead}; expected 1 or more.")

    def read_one(item: Item) -> tuple[Item, Content | OSError]:
        try:
            return item, read(item)
        except OSError as error:
            return item, error
        except MemoryError as error:  # one item is too large; continue with the next
            failure = OSError(f"{item} cannot be read: it does not fit into memory")
            failure.__cause__ = error
            return item, failure

    with ThreadPoolExecutor(num_threads, thread_name_prefix="read-ahead") as threads:
        running: deque[Future[tuple[Item, Content | OSError]]] = deque()
        try:
            for item in items:
                running.append(threads.submit(read_one, item))
                if len(running) > num_ahead:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:  # the consumer stopped early
                future.cancel()
