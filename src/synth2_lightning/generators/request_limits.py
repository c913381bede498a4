"""How hard a server is pushed, and how long one waits for it."""

import math
import random
import time
from dataclasses import dataclass

_LONGEST_BACK_OFF = 60.0
_jitter = random.Random()  # of its own, so that a seeded run draws the same whatever its server does


@dataclass(frozen=True, kw_only=True)  # without slots: the command line asks defaults for their __dict__
class RequestLimits:
    """How many requests a server gets, and what happens to those that fail. None of it decides an answer.

    Args:
        num_concurrent: Requests in flight at a time, of each rank. A server that batches wants many; a hosted one
            says how many it allows.
        requests_per_minute: Most requests that are started in a minute, of each rank; as many as go if ``None``.
        timeout: Seconds until a request without a whole answer counts as failed, from its start to the last byte.
        max_retries: How often a request that failed is sent again before the run stops.
        retry_delay: Seconds before the first retry; each later one waits twice as long, up to a minute. Where the
            server says how long to wait, that counts.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> limits = RequestLimits(num_concurrent=64, requests_per_minute=3000)
        >>> 1.0 <= limits.back_off(2) <= 2.0
        True
    """

    num_concurrent: int = 8
    requests_per_minute: float | None = None
    timeout: float = 120.0
    max_retries: int = 6
    retry_delay: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.num_concurrent < 1 or self.max_retries < 0:
            raise ValueError(
                f"RequestLimits was given num_concurrent={self.num_concurrent} and max_retries={self.max_retries}; "
                "expected 1 or more requests in flight, and 0 or more retries."
            )
        rate = math.inf if self.requests_per_minute is None else self.requests_per_minute
        if not (rate > 0 and self.timeout > 0 and self.retry_delay > 0):
            raise ValueError(
                f"RequestLimits was given requests_per_minute={self.requests_per_minute}, timeout={self.timeout} and "
                f"retry_delay={self.retry_delay}; expected more than 0 of each, or no"
                " requests_per_minute for no limit."
            )

    def back_off(self, num_failures: int) -> float:
        """Seconds to wait after so many failures in a row, from 1: a random half of it, so that requests spread."""
        return min(self.retry_delay * 2.0 ** min(num_failures - 1, 30), _LONGEST_BACK_OFF) * _jitter.uniform(0.5, 1.0)


class Pacer:
    """Starts the requests of one process at a steady rate, and holds all of them back when the server says so.

    Args:
        requests_per_minute: Most requests that are started in a minute; as many as go if ``None``.

    Example:
        >>> pacer = Pacer(requests_per_minute=60)
        >>> pacer.take_turn(), 0.9 < pacer.take_turn() <= 1.0
        (0.0, True)
    """

    def __init__(self, requests_per_minute: float | None) -> None:
        self._interval = 0.0 if requests_per_minute is None else 60.0 / requests_per_minute
        self._next = 0.0

    def take_turn(self) -> float:
        """Take the next turn: 0 if the request may start now, otherwise the seconds until one may ask again."""
        now = time.monotonic()
        if now < self._next:
            return self._next - now
        self._next = now + self._interval
        return 0.0

    def hold(self, seconds: float) -> None:
        """Start none for a while."""
        self._next = max(self._next, time.monotonic() + seconds)
