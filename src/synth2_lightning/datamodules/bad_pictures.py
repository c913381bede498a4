"""Pictures that cannot be read: named, counted, and too many of them refused."""

import logging
from collections.abc import Iterable, Set

_logger = logging.getLogger(__name__)
_NUM_NAMED = 5


class BadPictures:
    """Warns of every bad picture once, and stops the run when there are too many.

    Args:
        limit: How many different ones are put up with.

    Raises:
        ValueError: If the limit is negative.

    Example:
        >>> bad = BadPictures(limit=2)
        >>> bad.add(["coco/7: truncated", "coco/7: truncated"])
        >>> len(bad.names)
        1
    """

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"max_bad_pictures is {limit}; expected 0 or more.")
        self.limit = limit
        self.names: dict[str, None] = {}

    def add(self, names: Iterable[str]) -> None:
        """Count pictures.

        Raises:
            ValueError: If there are more than the limit.
        """
        for name in names:
            if name not in self.names:
                _logger.warning("Another picture takes the place of %s", name)
                self.names[name] = None
        refuse_too_many(self.names.keys(), self.limit)


def refuse_too_many(names: Set[str], limit: int) -> None:
    """Stop when there are more bad pictures than the limit.

    Raises:
        ValueError: If so, with the first names.
    """
    if len(names) > limit:
        named = "; ".join(list(names)[:_NUM_NAMED]) + ("; and others" if len(names) > _NUM_NAMED else "")
        raise ValueError(
            f"{len(names)} pictures could not be read, and max_bad_pictures={limit} puts up with no more than {limit}: "
            f"{named}. Repair them, take them out of the index, or raise max_bad_pictures."
        )
