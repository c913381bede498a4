"""Download of images by http and https, with limits on size and time."""

import asyncio
from functools import cache
from io import BytesIO
from typing import Any


class ImageFetcher:
    """Downloads images by http and https only, redirects included.

    Args:
        max_bytes: Maximum size of a response; a larger download is aborted.
        timeout: Maximum time of a whole download in seconds.

    Raises:
        ValueError: If a limit is not above 0.

    Example:
        >>> ImageFetcher(max_bytes=1_000_000).timeout
        30.0
    """

    def __init__(self, max_bytes: int = 64 * 2**20, timeout: float = 30.0) -> None:
        if max_bytes <= 0 or timeout <= 0:
            raise ValueError(f"ImageFetcher got max_bytes={max_bytes}, timeout={timeout}; expected both above 0.")
        self.max_bytes = max_bytes
        self.timeout = timeout

    def fetch(self, url: str) -> BytesIO:
        """Return the content of one image file; thread-safe.

        Raises:
            OSError: If the request fails or times out, the response is too large or compressed, or a redirect leads
                from a public host to a private one.
        """
        import httpx2

        from synth2_lightning.io.http_limits import run_async

        try:
            return BytesIO(run_async(self._fetch(url)))
        except TimeoutError as error:
            reason = f"the download took longer than {self.timeout:g} seconds"
            raise OSError(f"The image {url} cannot be fetched: {reason}") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise OSError(f"The image {url} cannot be fetched: {reason}") from error

    async def _fetch(self, url: str) -> bytes:
        import httpx2

        from synth2_lightning.io.http_limits import NOT_COMPRESSED, check_redirects, limit_size

        async with (
            httpx2.AsyncClient(
                verify=_trust(),
                headers={"User-Agent": "synth2-lightning", **NOT_COMPRESSED},
                timeout=None,  # asyncio.timeout() limits the whole download
                follow_redirects=True,
                event_hooks={"request": [check_redirects(url)], "response": [limit_size(self.max_bytes)]},
            ) as client,
            asyncio.timeout(self.timeout),
        ):
            return (await client.get(url)).raise_for_status().content


@cache
def _trust() -> Any:
    # Cached: reading the certificates takes longer than most downloads.
    import httpx2

    return httpx2.create_ssl_context()
