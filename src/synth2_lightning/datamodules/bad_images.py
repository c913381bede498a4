"""Warnings about unreadable images, and a limit on their number."""

import logging
from collections.abc import Iterable, Set

_logger = logging.getLogger(__name__)
_NUM_NAMED = 5


class BadImages:
    """Logs one warning per unreadable image, and raises an error above a limit.

    Args:
        limit: Maximum number of different unreadable images.

    Attributes:
        names: Names of the unreadable images so far, with reasons.

    Raises:
        ValueError: If the limit is negative.

    Example:
        >>> bad = BadImages(limit=2)
        >>> bad.add(["coco/7: truncated", "coco/7: truncated"])
        >>> len(bad.names)
        1
    """

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"max_bad_images is {limit}; expected 0 or more.")
        self.limit = limit
        self.names: dict[str, None] = {}

    def add(self, names: Iterable[str]) -> None:
        """Count unreadable images.

        Raises:
            ValueError: If there are more than the limit.
        """
        for name in names:
            if name not in self.names:
                _logger.warning("Replaced by another image: %s", name)
                self.names[name] = None
        check_num_bad(self.names.keys(), self.limit)


def check_num_bad(names: Set[str], limit: int) -> None:
    """Check the number of unreadable images.

    Raises:
        ValueError: If there are more than the limit, with the first names.
    """
    if len(names) > limit:
        first = "; ".join(list(names)[:_NUM_NAMED]) + ("; and others" if len(names) > _NUM_NAMED else "")
        raise ValueError(
            f"{len(names)} images could not be read: {first}. Expected at most max_bad_images={limit}. Repair them, "
            "remove them from the index, or raise max_bad_images."
        )
