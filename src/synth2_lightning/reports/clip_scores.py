"""CLIPScore and RefCLIPScore of captions of images in a folder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from synth2_lightning.interfaces import ImageTextEncoder
from synth2_lightning.io.locations import resolve
from synth2_lightning.io.messages import name_first
from synth2_lightning.metrics.clip_score import PREFIX, ref_clip_scores
from synth2_lightning.reports.predictions import read_file_names
from synth2_lightning.sources.images import decode_image
from synth2_lightning.types import Pixels

_BATCH_SIZE = 64
_MAX_BYTES = 2**27


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Folder of images for CLIPScore and RefCLIPScore.

    Args:
        location: Folder of the ``file_name`` entries in the references.
        encoder: CLIP encoder; loaded when needed.
    """

    location: str
    encoder: ImageTextEncoder

    def find(self, references: str, keys: Sequence[str]) -> dict[str, Path]:
        """Return the file of each image, by the file names in COCO captions.

        Raises:
            FileNotFoundError: If the folder or an image does not exist.
            ValueError: If the references lack the ``file_name`` of an image.
        """
        folder, names = resolve(self.location, "folder of images"), read_file_names(references)
        unnamed = [key for key in keys if key not in names]
        if unnamed:
            raise ValueError(
                f"{references} has no file name for {len(unnamed)} ({name_first(unnamed)}) of {len(keys)} images; "
                "expected {'id': 1, 'file_name': '1.jpg'} for each of them in 'images'. Add them, or omit --images."
            )
        files = {key: folder / names[key] for key in keys}
        missing = [str(file) for file in files.values() if not file.is_file()]
        if missing:
            raise FileNotFoundError(
                f"CLIPScore requires the images of all captions; {len(missing)} ({name_first(missing)}) of "
                f"{len(files)} are missing. Expected the file names in {references}, relative to --images. "
                "Add the files, or omit --images."
            )
        return files

    def score(
        self, files: Mapping[str, Path], hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]
    ) -> dict[str, float]:
        """Return the mean ``CLIPScore`` in [0, 2.5] and ``RefCLIPScore`` in [0, 10/7] of captions.

        Raises:
            OSError: If the weights cannot be loaded, or an image cannot be read.
        """
        self.encoder.load()
        clip: list[float] = []
        ref_clip: list[float] = []
        keys = list(files)
        for start in range(0, len(keys), _BATCH_SIZE):
            for pixels, members in _stack({key: files[key] for key in keys[start : start + _BATCH_SIZE]}):
                captions, texts = [hypotheses[key] for key in members], [references[key] for key in members]
                scores = ref_clip_scores(self.encoder, pixels, captions, texts)
                clip += scores.clip_scores.tolist()
                ref_clip += scores.ref_clip_scores.tolist()
        return {"CLIPScore": fsum(clip) / len(files), "RefCLIPScore": fsum(ref_clip) / len(files)}

    def describe(self) -> dict[str, Any]:
        """Return the model, its weights, and the prompt prefix.

        Raises:
            RuntimeError: If the encoder is not loaded.
        """
        return {**self.encoder.provenance(), "prompt": PREFIX}


def _stack(files: Mapping[str, Path]) -> Iterator[tuple[Pixels, list[str]]]:
    """Yield batches of images of equal size, with their keys, within a memory limit."""
    pending: dict[str, Tensor] = {}
    for key, file in files.items():
        pending[key] = pil_to_tensor(decode_image(file, str(file)))
        if sum(image.numel() for image in pending.values()) > _MAX_BYTES:
            yield from _stack_equal(pending)
            pending = {}
    yield from _stack_equal(pending)


def _stack_equal(images: Mapping[str, Tensor]) -> Iterator[tuple[Pixels, list[str]]]:
    groups: dict[torch.Size, list[tuple[str, Tensor]]] = {}
    for key, image in images.items():
        groups.setdefault(image.shape, []).append((key, image))
    for group in groups.values():
        yield Pixels(torch.stack([image for _, image in group])), [key for key, _ in group]
