"""Nearest-neighbor search among the synthetic training pairs of a captioner."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from synth2_lightning.datamodules.pairs import BatchDataset
from synth2_lightning.interfaces import ImageTokenizer
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.types import ImageInput, VQTokens

_CHUNK = 16_384


class Neighbor(NamedTuple):
    """A similar training pair.

    Attributes:
        caption: Its caption.
        image: Its decoded image tokens; ``None`` if the tokenizer has no decoder.
        similarity: Cosine similarity.
    """

    caption: str
    image: Image.Image | None
    similarity: float


class Neighbors:
    """Index of pairs by the mean of the captioner's visual tokens.

    Means are stored on disk in float16 and read in chunks, so that memory does not grow with the number of pairs. They
    are centered before the cosine similarity is computed, because their common part does not distinguish images.

    Args:
        module: A captioner in evaluation mode, on its device.
        pairs: Training pairs. Consecutive pairs of the same image count once.
        file: File of the means; overwritten.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler
        >>> module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
        >>> Neighbors(module, pairs=[], file=Path("means.bin")).num_images
        0
    """

    def __init__(self, module: VisionLanguageModule, pairs: BatchDataset, file: Path) -> None:
        self.module = module
        self.pairs = pairs
        self.file = file
        self.width = module.decoder.embed_dim
        self._rows = np.empty(0, dtype=np.int64)
        self._center: Tensor = torch.zeros(self.width)

    @property
    def num_images(self) -> int:
        """Number of different images in the index."""
        return len(self._rows)

    def build(self, batch_size: int = 256) -> Iterator[int]:
        """Build the index, one batch per step.

        Yields:
            Number of pairs of each batch.

        Raises:
            ValueError: If the image tokens of the pairs do not belong to the codebook of the captioner's encoder.
        """
        rows: list[npt.NDArray[np.int64]] = []
        total = torch.zeros(self.width, dtype=torch.float64)
        last: tuple[str, str] | None = None
        with self.file.open("wb") as out:
            for start in range(0, len(self.pairs), batch_size):
                indices = range(start, min(start + batch_size, len(self.pairs)))
                batch = self.pairs.read(indices)
                names = list(zip(batch.sources, batch.keys, strict=True))
                is_new = torch.tensor([name != before for name, before in zip(names, [last, *names], strict=False)])
                means = self._pool(batch.image)[is_new]
                out.write(means.half().numpy().tobytes())
                total += means.double().sum(0)
                rows.append(np.asarray(indices, dtype=np.int64)[is_new.numpy()])
                last = names[-1]
                yield len(indices)
        self._rows = np.concatenate(rows) if rows else self._rows
        self._center = (total / max(1, len(self._rows))).float()

    def find(self, image: ImageInput, num: int) -> list[Neighbor]:
        """Return the ``num`` pairs most similar to one image, in descending order of similarity."""
        if not self.num_images:
            return []
        means = np.memmap(self.file, dtype=np.float16, mode="r", shape=(self.num_images, self.width))
        query = _unit(self._pool(image)[0] - self._center)
        best = torch.empty(0), torch.empty(0, dtype=torch.long)
        for start in range(0, self.num_images, _CHUNK):
            chunk = torch.from_numpy(np.array(means[start : start + _CHUNK])).float() - self._center
            values = torch.cat([best[0], _unit(chunk) @ query])
            positions = torch.cat([best[1], torch.arange(start, start + len(chunk))])
            top = values.topk(min(num, len(values)))
            best = top.values, positions[top.indices]
        batch = self.pairs.read([int(self._rows[position]) for position in best[1].tolist()])
        images = self._decode(batch.image)
        return [Neighbor(*each) for each in zip(batch.captions, images, best[0].tolist(), strict=True)]

    @torch.no_grad()
    def _pool(self, image: ImageInput) -> Float[Tensor, "batch width"]:
        return self.module.encode_images(image.to(self.module.device)).float().mean(1).cpu()

    def _decode(self, image: ImageInput) -> Sequence[Image.Image | None]:
        encoder = self.module.image_encoder
        try:
            if not isinstance(image, VQTokens) or not isinstance(encoder, ImageTokenizer):
                return [None] * len(image)
            pixels = encoder.detokenize(image.to(self.module.device)).values.cpu()
        except TypeError:  # the tokenizer has no decoder
            return [None] * len(image)
        return [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in pixels]


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)
