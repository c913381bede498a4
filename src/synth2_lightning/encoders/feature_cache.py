"""Features of a frozen image encoder, kept on disk so that an image is encoded once."""

import errno
import logging
import weakref
from hashlib import blake2b
from tempfile import TemporaryFile
from typing import IO

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from synth2_lightning.interfaces import ImageEncoder
from synth2_lightning.types import Pixels

_BYTES = 4  # of a feature: float32, so that a later quantization sees the encoder's own values
_logger = logging.getLogger(__name__)


class FeatureCache:
    """Features of a frozen encoder by the content of an image, in a temporary file of this process.

    Images are recognized by a hash of their pixels, so an image that was cropped or flipped is another image. The file
    is in the folder for temporary files (``TMPDIR``) and is deleted when the process ends. Images that do not fit are
    encoded each time.

    Args:
        encoder: Encoder of the features; it must be loaded before the first call of :meth:`encode`.
        cache_gib: Maximum size of the file in GiB; 0 encodes each image each time.

    Attributes:
        num_images: Number of images in the file.

    Raises:
        ValueError: If ``cache_gib`` is negative.

    Example:
        >>> from synth2_lightning.testing import TinyImageTokenizer, tiny_batch
        >>> encoder, pixels = TinyImageTokenizer(), tiny_batch(3).image
        >>> cache = FeatureCache(encoder, cache_gib=1.0)
        >>> torch.equal(cache.encode(pixels), encoder.encode_pixels(pixels)), cache.num_images
        (True, 3)
    """

    def __init__(self, encoder: ImageEncoder, cache_gib: float) -> None:
        if cache_gib < 0:
            raise ValueError(f"FeatureCache got cache_gib={cache_gib}; expected 0 or more GiB.")
        self.encoder = encoder
        self._row_bytes = encoder.num_tokens * encoder.embed_dim * _BYTES
        self._max_rows = int(cache_gib * 2**30) // self._row_bytes
        self._rows: dict[bytes, int] = {}
        self._file: IO[bytes] | None = None  # opened at the first write: an open file cannot be copied with a module

    @property
    def num_images(self) -> int:
        """Number of images in the file."""
        return len(self._rows)

    def encode(self, pixels: Pixels) -> Float[Tensor, "batch tokens dim"]:
        """Return features in float32, on the device of the images; only unknown images are encoded."""
        if not self._max_rows:
            return self.encoder.encode_pixels(pixels).float()
        digests = [_digest(image) for image in pixels.values.cpu()]
        first = {digest: row for row, digest in reversed(list(enumerate(digests)))}
        unknown = sorted(row for digest, row in first.items() if digest not in self._rows)
        encoded: dict[bytes, Tensor] = {}
        if unknown:
            features = self.encoder.encode_pixels(Pixels(pixels.values[unknown])).float().cpu()
            encoded = {digests[row]: each for row, each in zip(unknown, features, strict=True)}
        batch = [encoded[digest] if digest in encoded else self._read(self._rows[digest]) for digest in digests]
        self._write(encoded)
        return torch.stack(batch).to(pixels.values.device)

    def _read(self, row: int) -> Float[Tensor, "tokens dim"]:
        features = torch.empty(self.encoder.num_tokens, self.encoder.embed_dim)
        assert self._file is not None, "rows are in the file"
        self._file.seek(row * self._row_bytes)
        self._file.readinto(features.numpy())  # type: ignore[attr-defined]  # of every binary file
        return features

    def _write(self, features: dict[bytes, Float[Tensor, "tokens dim"]]) -> None:
        try:
            for digest, each in features.items():
                if len(self._rows) >= self._max_rows:
                    return
                self._append(digest, each)
        except OSError as error:
            _logger.warning(
                "The features of an image could not be written to a temporary file of %d images: %s. Further images "
                "are encoded each time. To encode each image once, set TMPDIR to a folder with more free space.",
                *(len(self._rows), error),
            )
            self._max_rows = len(self._rows)

    def _append(self, digest: bytes, features: Float[Tensor, "tokens dim"]) -> None:
        if self._file is None:
            self._file = TemporaryFile(buffering=0)  # noqa: SIM115 - closed with the cache
            weakref.finalize(self, self._file.close)
        self._file.seek(len(self._rows) * self._row_bytes)
        if self._file.write(features.contiguous().numpy().tobytes()) < self._row_bytes:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._rows[digest] = len(self._rows)


def _digest(image: UInt8[Tensor, "3 height width"]) -> bytes:
    shape = "x".join(map(str, image.shape)).encode()
    return blake2b(image.contiguous().numpy().tobytes(), digest_size=16, person=shape[:16]).digest()
