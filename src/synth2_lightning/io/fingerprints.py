"""Fingerprints of codebooks, weights, files and texts."""

import hashlib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float
from torch import Tensor, nn


def fingerprint_codebook(
    name: str,
    codes: Float[Tensor, "codes dim"] | Float[Tensor, "levels codes dim"],
    image_size: int,
    pixel_range: tuple[float, float] = (0.0, 1.0),
) -> str:
    """Return the fingerprint of a codebook: name, size, and a hash of the codes and of the input that they quantize.

    Image tokens carry it, and encoders compare it with their own. Equal codes have equal fingerprints in tokenizers and
    generators.

    Args:
        name: Name of the codebook, the prefix of the fingerprint.
        codes: Vectors of one level or of several. Only the values matter, not precision and device.
        image_size: Height and width in pixels of the images that are quantized.
        pixel_range: Values of their black and white pixels.

    Example:
        >>> fingerprint_codebook("clip", torch.zeros(2, 16, 4), image_size=224)
        'clip-16x2:3b60067b'
    """
    content = codes.detach().float().cpu().contiguous().numpy().tobytes()
    content += f"{image_size} {float(pixel_range[0])} {float(pixel_range[1])}".encode()
    size = "x".join(str(count) for count in reversed(codes.shape[:-1]))
    return f"{name}-{size}:{hashlib.sha256(content).hexdigest()[:8]}"


def fingerprint_weights(name: str, network: nn.Module) -> str:
    """Return the fingerprint of a network: name and a hash of all parameters and buffers.

    Example:
        >>> fingerprint_weights("prelu", nn.PReLU())
        'prelu:aa16fdec'
    """
    digest = hashlib.sha256()
    for path, weight in sorted(chain(network.named_parameters(), network.named_buffers())):
        digest.update(path.encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return f"{name}:{digest.hexdigest()[:8]}"


def fingerprint_file(path: Path) -> str:
    """Return the SHA-256 of the content of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_texts(texts: Iterable[str]) -> str:
    """Return a fingerprint of texts in order.

    Example:
        >>> fingerprint_texts(["a fox", "a dog"]) == fingerprint_texts(["a foxa", " dog"])
        False
    """
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode("utf-8", errors="surrogatepass")
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()[:12]


def hash_record(record: tuple[str, str]) -> int:
    """Return a hash of a record, given as its source and key, below 2**64.

    Example:
        >>> hash_record(("coco", "7")) == hash_record(("coc", "o7"))
        False
    """
    return int.from_bytes(hashlib.blake2b("\0".join(record).encode(), digest_size=8).digest())


def fingerprint_captions(keys: pa.Array | pa.ChunkedArray, captions: pa.Array | pa.ChunkedArray) -> str:
    """Return a checksum of keys and their captions, in order.

    Args:
        keys: Strings.
        captions: Lists of strings, one per key.

    Example:
        >>> fingerprint_captions(pa.array(["a"]), pa.array([["one", "two"]]))
        'f6cb7926d0057fdd'
    """
    digest = hashlib.blake2b(digest_size=8)
    texts = pc.list_flatten(captions)
    for length in (pc.list_value_length(captions), pc.binary_length(texts), pc.binary_length(keys)):
        digest.update(np.asarray(length, dtype=np.int64).tobytes())
    for column in (texts, keys):
        for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            _, ends, content = chunk.cast(pa.large_string()).buffers()
            bounds = np.frombuffer(ends, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
            if len(chunk) and content is not None:
                digest.update(memoryview(content)[bounds[0] : bounds[-1]])
    return digest.hexdigest()
