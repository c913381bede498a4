"""Concurrency, rate limits and retries of requests to a server."""

import math
import random
import time
from dataclasses import dataclass

_MAX_BACK_OFF = 60.0
_jitter = random.Random()  # separate, so that retries do not affect a seeded run


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads defaults with vars()
class RequestLimits:
    """Limits of the requests to a server; they do not affect the answers.

    Args:
        num_concurrent: Requests in flight per rank. Servers that batch need many; hosted ones document a maximum.
        requests_per_minute: Maximum number of requests started per minute and rank; ``None`` for no limit.
        timeout: Seconds from the start of a request to the last byte of its answer.
        max_retries: Number of retries per failed request before the run stops.
        retry_delay: Seconds before the first retry; doubles with each retry, up to a minute. A Retry-After header takes
            precedence.

    Raises:
        ValueError: If a number is out of range.

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
                f"RequestLimits got num_concurrent={self.num_concurrent} and max_retries={self.max_retries}; "
                "expected 1 or more requests in flight, and 0 or more retries."
            )
        rate = math.inf if self.requests_per_minute is None else self.requests_per_minute
        if not (rate > 0 and self.timeout > 0 and self.retry_delay > 0):
            raise ValueError(
                f"RequestLimits got requests_per_minute={self.requests_per_minute}, timeout={self.timeout} and "
                f"retry_delay={self.retry_delay}; expected numbers above 0, or no requests_per_minute for no limit."
            )

    def back_off(self, num_failures: int) -> float:
        """Return the seconds to wait after the given number of consecutive failures, from 1, with jitter."""
        return min(self.retry_delay * 2.0 ** min(num_failures - 1, 30), _MAX_BACK_OFF) * _jitter.uniform(0.5, 1.0)


class Pacer:
    """Rate limiter of one process's requests, which a server can pause.

    Args:
        requests_per_minute: Maximum number of requests started per minute; ``None`` for no limit.

    Example:
        >>> pacer = Pacer(requests_per_minute=60)
        >>> pacer.take_turn(), 0.9 < pacer.take_turn() <= 1.0
        (0.0, True)
    """

    def __init__(self, requests_per_minute: float | None) -> None:
        self._interval = 0.0 if requests_per_minute is None else 60.0 / requests_per_minute
        self._next = 0.0

    def take_turn(self) -> float:
        """Return 0 if a request may start now, otherwise the seconds to wait before the next call."""
        now = time.monotonic()
        if now < self._next:
            return self._next - now
        self._next = now + self._interval
        return 0.0

    def hold(self, seconds: float) -> None:
        """Start no request for the given seconds."""
        self._next = max(self._next, time.monotonic() + seconds)
