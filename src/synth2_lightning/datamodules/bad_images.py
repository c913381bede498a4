"""Warnings about unreadable images, and a limit on their rate."""

import logging
from collections import deque
from collections.abc import Iterable, Set

_logger = logging.getLogger(__name__)
_NUM_NAMED = 5
_NUM_WARNINGS = 100
WINDOW = 1000
"""Number of images read in succession, of which ``max_bad_images`` may be unreadable."""


class BadImages:
    """Logs a warning for each of the first 100 unreadable images, and raises an error above a rate.

    Args:
        limit: Maximum number of unreadable images among 1,000 read in succession; an image counts the first time.

    Attributes:
        names: Names of the unreadable images so far, with reasons.

    Raises:
        ValueError: If the limit is negative.

    Example:
        >>> bad = BadImages(limit=2)
        >>> bad.add(["coco/7: truncated", "coco/7: truncated"], num_read=64)
        >>> len(bad.names)
        1
    """

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"max_bad_images is {limit}; expected 0 or more.")
        self.limit = limit
        self.names: dict[str, None] = {}
        self._recent: deque[tuple[int, str]] = deque()  # with the number of images read before
        self._num_read = 0

    def add(self, names: Iterable[str], num_read: int) -> None:
        """Count the images of a batch.

        Args:
            names: Names of the unreadable ones.
            num_read: Number of all images of the batch.

        Raises:
            ValueError: If more than ``limit`` of the last 1,000 images are unreadable.
        """
        self._num_read += num_read
        for name in names:
            if name not in self.names:
                self.names[name] = None
                self._recent.append((self._num_read, name))
                if len(self.names) <= _NUM_WARNINGS:
                    _logger.warning("Replaced by another image: %s", name)
                if len(self.names) == _NUM_WARNINGS:
                    _logger.warning("Further unreadable images are replaced without a warning.")
        while self._recent and self._recent[0][0] <= self._num_read - WINDOW:
            self._recent.popleft()
        check_num_bad({name: None for _, name in self._recent}.keys(), self.limit)


def check_num_bad(names: Set[str], limit: int) -> None:
    """Check the number of unreadable images.

    Raises:
        ValueError: If there are more than the limit, with the first names.
    """
    if len(names) > limit:
        first = "; ".join(list(names)[:_NUM_NAMED]) + ("; and others" if len(names) > _NUM_NAMED else "")
        raise ValueError(
            f"{len(names)} images could not be read: {first}. Expected at most max_bad_images={limit} of {WINDOW} in "
            "succession. Repair them, remove them from the index, or raise max_bad_images."
        )
