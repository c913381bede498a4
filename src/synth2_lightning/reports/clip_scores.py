"""CLIPScore and RefCLIPScore of captions whose pictures lie in a folder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from synth2_lightning.interfaces import ImageTextEncoder
from synth2_lightning.locations import resolve
from synth2_lightning.metrics.clip_score import PREFIX, ref_clip_scores
from synth2_lightning.reports.predictions import read_file_names
from synth2_lightning.sources.pictures import decode_picture
from synth2_lightning.types import Pixels

_BATCH_SIZE = 64
_MOST_BYTES = 2**27


@dataclass(frozen=True, slots=True)
class PictureFolder:
    """Pictures that captions are scored by.

    Args:
        location: Folder that the references' ``file_name`` entries are relative to.
        encoder: Whose space pictures and captions are compared in; it need not be loaded yet.

    Example:
        >>> from synth2_lightning.encoders.open_clip import OpenClipImageTextEncoder
        >>> PictureFolder("val2014", OpenClipImageTextEncoder("ViT-B-32-quickgelu", "openai")).location
        'val2014'
    """

    location: str
    encoder: ImageTextEncoder

    def find(self, references: str, keys: Sequence[str]) -> dict[str, Path]:
        """Find the file of every picture.

        Args:
            references: Location of COCO captions.
            keys: Ids of pictures in it.

        Raises:
            FileNotFoundError: If the folder or a picture is missing.
            ValueError: If the references do not name a picture's file.
        """
        folder, names = resolve(self.location, "folder of pictures"), read_file_names(references)
        nameless = [key for key in keys if key not in names]
        if nameless:
            raise ValueError(
                f"{references} names no file for {_examples(nameless)} of {len(keys)} pictures; expected "
                "{'id': 1, 'file_name': '1.jpg'} for each of them in 'images'. Add them, or leave out --pictures."
            )
        files = {key: folder / names[key] for key in keys}
        missing = [str(file) for file in files.values() if not file.is_file()]
        if missing:
            raise FileNotFoundError(
                f"CLIPScore needs the pictures of all captions, and {_examples(missing)} of {len(files)} are missing. "
                f"Expected the files that {references} names, below --pictures; add them, or leave out --pictures."
            )
        return files

    def score(
        self, files: Mapping[str, Path], hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]
    ) -> dict[str, float]:
        """Score captions by their pictures, and by what people wrote, too.

        Returns:
            ``CLIPScore`` (0 to 2.5) and ``RefCLIPScore`` (0 to 10/7), means over the pictures.

        Raises:
            OSError: If the weights cannot be had, or a picture cannot be read.
        """
        self.encoder.load()
        alone: list[float] = []
        both: list[float] = []
        keys = list(files)
        for start in range(0, len(keys), _BATCH_SIZE):
            for pixels, members in _stack({key: files[key] for key in keys[start : start + _BATCH_SIZE]}):
                texts, people = [hypotheses[key] for key in members], [references[key] for key in members]
                scores = ref_clip_scores(self.encoder, pixels, texts, people)
                alone += scores.clip_scores.tolist()
                both += scores.ref_clip_scores.tolist()
        return {"CLIPScore": fsum(alone) / len(files), "RefCLIPScore": fsum(both) / len(files)}

    def describe(self) -> dict[str, Any]:
        """Say what a reader must know of the scores: the model, its weights, and what was put before texts.

        Raises:
            RuntimeError: If the encoder is not loaded.
        """
        return {**self.encoder.provenance(), "prompt": PREFIX}


def _stack(files: Mapping[str, Path]) -> Iterator[tuple[Pixels, list[str]]]:
    """Stack pictures of the same height and width, as soon as all that wait take too much memory."""
    waiting: dict[str, Tensor] = {}
    for key, file in files.items():
        waiting[key] = pil_to_tensor(decode_picture(file, str(file)))
        if sum(picture.numel() for picture in waiting.values()) > _MOST_BYTES:
            yield from _stack_equal(waiting)
            waiting = {}
    yield from _stack_equal(waiting)


def _stack_equal(pictures: Mapping[str, Tensor]) -> Iterator[tuple[Pixels, list[str]]]:
    groups: dict[torch.Size, list[tuple[str, Tensor]]] = {}
    for key, picture in pictures.items():
        groups.setdefault(picture.shape, []).append((key, picture))
    for group in groups.values():
        yield Pixels(torch.stack([picture for _, picture in group])), [key for key, _ in group]


def _examples(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
