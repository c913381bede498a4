"""Suppression of single log messages of other libraries."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_messages(logger: str | None, text: str) -> Iterator[None]:
    """Suppress the messages that contain a text.

    Args:
        logger: Name of the logger that they are sent to; ``None`` for the root logger.
        text: Part of the messages.
    """

    def is_other(record: logging.LogRecord) -> bool:
        return text not in record.getMessage()

    logging.getLogger(logger).addFilter(is_other)
    try:
        yield
    finally:
        logging.getLogger(logger).removeFilter(is_other)
