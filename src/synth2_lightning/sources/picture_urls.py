"""Fetch a picture from the web, within limits of size and time."""

import time
from io import BytesIO


class PictureFetcher:
    """Fetches pictures by http and https, and nothing by anything else, redirects included.

    Args:
        max_bytes: Larger answers are refused as soon as that many have come.
        timeout: Seconds that a whole answer may take.

    Raises:
        ValueError: If a limit is not above zero.

    Example:
        >>> PictureFetcher(max_bytes=1_000_000).timeout
        30.0
    """

    def __init__(self, max_bytes: int = 64 * 2**20, timeout: float = 30.0) -> None:
        if max_bytes <= 0 or timeout <= 0:
            raise ValueError(f"PictureFetcher got max_bytes={max_bytes}, timeout={timeout}; expected both above 0.")
        self.max_bytes = max_bytes
        self.timeout = timeout

    def fetch(self, url: str) -> BytesIO:
        """Fetch one picture; to be called from any thread.

        Raises:
            OSError: If there is no answer, no good one, a late one, or one that is too large.
        """
        import httpx2

        content = BytesIO()
        deadline = time.monotonic() + self.timeout
        try:
            # "identity", or a small answer might be unpacked into one that fills the memory.
            headers = {"Accept-Encoding": "identity", "User-Agent": "synth2-lightning"}
            with httpx2.stream("GET", url, headers=headers, timeout=self.timeout, follow_redirects=True) as response:
                response.raise_for_status()
                for chunk in response.iter_raw():
                    content.write(chunk)
                    self._check(content.tell(), deadline)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise OSError(f"The picture {url} cannot be fetched: {reason}") from error
        content.seek(0)
        return content

    def _check(self, num_bytes: int, deadline: float) -> None:
        if num_bytes > self.max_bytes:
            raise ValueError(f"it has more than the {self.max_bytes} bytes that are allowed")
        if time.monotonic() > deadline:
            raise ValueError(f"it had not come after {self.timeout:g} seconds, {num_bytes} bytes of it had")
