"""A trained captioner for anybody's pictures: loaded from where it lies, asked in one call."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, assert_never

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from synth2_lightning.class_specs import trusting
from synth2_lightning.datamodules.photographs import cut_square
from synth2_lightning.export import load_exported
from synth2_lightning.fingerprints import fingerprint_weights
from synth2_lightning.locations import hub_from_cache, resolve
from synth2_lightning.modules.captioner_checkpoint import read_captioner
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.sharing.folder import is_exported
from synth2_lightning.sharing.runs import find_run
from synth2_lightning.sources.pictures import decode_picture, pixel_limit, to_rgb
from synth2_lightning.sources.read_ahead import read_ahead
from synth2_lightning.types import ImageTextBatch, Pixels

Picture = str | Path | Image.Image | np.ndarray[Any, np.dtype[Any]] | Tensor
"""A file, a picture of Pillow, an array ``(height, width)`` or with 3 or 4 channels, a tensor with 1 or 3 before."""

Item = TypeVar("Item")

MAX_PIXELS = 178_956_970
"""Largest picture that is read unless another limit is given: what Pillow by itself refuses from."""

BATCH_SIZE = 64
"""Pictures that go through the model at a time, unless told."""

_MAX_READERS = 8


class Captioned(NamedTuple):
    """What became of one picture.

    Attributes:
        caption: What the model says; empty where there is an error.
        error: Why the picture could not be read.
    """

    caption: str
    error: OSError | None = None


class Captioner:
    """Writes captions of pictures, in batches, while the next pictures are being read.

    A picture is cut as in validation: its shorter side is brought to the encoder's size, and the middle square is seen.
    On a GPU that computes in bfloat16 by itself, most of the work is done in it; on a processor, in float32.

    Args:
        module: With its weights.
        device: Where it computes; the accelerator that is there, or else the processor, if ``None``.
        num_beams: Width of the beam search; the run's own if ``None``.
        max_new_tokens: Most tokens of a caption; the run's own if ``None``.

    Raises:
        ValueError: If a setting of the decoding is below one, or the device is not there.

    Example:
        >>> from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler
        >>> captioner = Captioner(VisionLanguageModule(TinyImageTokenizer(), TinyResampler, TinyDecoder()))
        >>> len(captioner.caption([Image.new("RGB", (8, 6)), np.zeros((6, 8, 3), dtype=np.uint8)]))
        2
    """

    def __init__(
        self,
        module: VisionLanguageModule,
        device: torch.device | str | None = None,
        num_beams: int | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        if num_beams is not None:
            module.generation = replace(module.generation, num_beams=num_beams)
        if max_new_tokens is not None:
            module.generation = replace(module.generation, max_new_tokens=max_new_tokens)
        self.device = _best_device() if device is None else _check_device(device)
        self.module = module.requires_grad_(False).eval().to(self.device)
        self.image_size = module.image_encoder.image_size
        self._in_half = _computes_in_bfloat16(self.device)

    def caption(
        self, images: Sequence[Picture], batch_size: int = BATCH_SIZE, max_pixels: int = MAX_PIXELS
    ) -> list[str]:
        """Write one caption per picture.

        Args:
            images: Of any sizes.
            batch_size: How many go through the model at a time.
            max_pixels: Refuse files with more.

        Raises:
            OSError: If a picture cannot be read, with its name and the reason.
            TypeError: If ``images`` is one path or picture, and no sequence of them.
            ValueError: If an array or a tensor is no picture, or a count is below one.
        """
        if isinstance(images, (str, Path, Image.Image)):
            raise TypeError(f"caption() got one {type(images).__name__}; expected a sequence, such as [picture].")

        def read(numbered: tuple[int, Picture]) -> Image.Image:
            return self._read(numbered[1], f"number {numbered[0]}", max_pixels)

        captions = []
        with pixel_limit(max_pixels):
            for batch in self.stream(list(enumerate(images)), read, batch_size):
                for _, (caption, error) in batch:
                    if error is not None:
                        raise error
                    captions.append(caption)
        return captions

    def stream(
        self, items: Iterable[Item], read: Callable[[Item], Image.Image], batch_size: int = BATCH_SIZE
    ) -> Iterator[list[tuple[Item, Captioned]]]:
        """Write captions of whatever can be read, batch after batch; what cannot comes back with the reason.

        Args:
            items: Names of the pictures, or the like; taken as they are needed.
            read: Gives the picture of an item, in RGB, or raises an ``OSError``; called in several threads.
            batch_size: How many good pictures go through the model at a time.

        Yields:
            The items of each batch in their order, the bad ones among them.

        Raises:
            ValueError: If the batch size is below one.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected 1 or more.")

        def read_square(item: Item) -> Image.Image:
            return cut_square(read(item), self.image_size)

        num_threads = min(os.cpu_count() or 1, _MAX_READERS)
        waiting: list[tuple[Item, Image.Image | OSError]] = []
        num_good = 0
        for item, content in read_ahead(items, read_square, num_threads, num_ahead=2 * batch_size):
            waiting.append((item, content))
            num_good += isinstance(content, Image.Image)
            if num_good == batch_size:
                yield self._answer(waiting)
                waiting, num_good = [], 0
        if waiting:
            yield self._answer(waiting)

    def provenance(self) -> dict[str, Any]:
        """Give what decides captions: the fingerprint of all weights, and how captions are decoded."""
        return {
            "captioner": fingerprint_weights("captioner", self.module),
            "generation": asdict(self.module.generation),
        }

    def _read(self, image: Picture, name: str, max_pixels: int) -> Image.Image:
        match image:
            case str() | Path():
                return decode_picture(Path(image), str(image), max_pixels, wanted_size=self.image_size)
            case Image.Image():
                return to_rgb(image)
            case Tensor():
                return _from_tensor(image, name)
            case np.ndarray():
                return _from_array(image, name)
            case _:
                assert_never(image)

    def _answer(self, pictures: Sequence[tuple[Item, Image.Image | OSError]]) -> list[tuple[Item, Captioned]]:
        captions = iter(self._look_and_say([each for _, each in pictures if isinstance(each, Image.Image)]))
        return [
            (item, Captioned("", content) if isinstance(content, OSError) else Captioned(next(captions)))
            for item, content in pictures
        ]

    def _look_and_say(self, squares: Sequence[Image.Image]) -> Sequence[str]:
        if not squares:
            return ()
        values = torch.from_numpy(np.stack([np.asarray(square) for square in squares])).permute(0, 3, 1, 2)
        names = tuple(map(str, range(len(squares))))
        batch = ImageTextBatch(Pixels(values.contiguous()), ("",) * len(squares), names, ("pictures",) * len(squares))
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_half):
            return self.module.predict_step(batch.to(self.device), 0)["captions"]


def load_captioner(
    location: str | Path,
    device: torch.device | str | None = None,
    num_beams: int | None = None,
    max_new_tokens: int | None = None,
    trust: Collection[str] = (),
    from_hub: Collection[str] = (),
) -> Captioner:
    """Load a trained captioner; ``synth2_lightning.load`` is this function.

    Args:
        location: A checkpoint file, or the folder of a run (its best checkpoint, or else its last). Relative paths that
            stand in the run are looked up from the working directory, as when it was trained.
        device: As for :class:`Captioner`.
        num_beams: As for :class:`Captioner`.
        max_new_tokens: As for :class:`Captioner`.
        trust: As for :func:`load_module`.
        from_hub: Names on the Hub that an export may have fetched, as for
            :func:`~synth2_lightning.export.load_exported`.

    Raises:
        FileNotFoundError: If nothing lies there, or a file of the run is missing.
        ValueError: As for :func:`load_module`.
    """
    return Captioner(load_module(location, trust, from_hub), device, num_beams, max_new_tokens)


def load_module(
    location: str | Path, trust: Collection[str] = (), from_hub: Collection[str] = ()
) -> VisionLanguageModule:
    """Load the module of a captioner from wherever :func:`load_captioner` can, on the processor.

    Args:
        location: As for :func:`load_captioner`.
        trust: Names of top-level packages whose classes it may name, besides this one, torch, lightning and
            transformers: those of your own decoder or head.
        from_hub: Names of models on the Hugging Face Hub that may be fetched. Without, a checkpoint takes them from
            this machine's cache, and an export takes none.

    Raises:
        FileNotFoundError: If nothing lies there, or a file of the run is missing.
        ValueError: If it is no captioner's checkpoint, does not say how its parts are made, or names classes of
            packages that are not trusted.
    """
    path = resolve(location, "trained captioner")
    if is_exported(path):
        return load_exported(path, trust, from_hub=from_hub)
    with trusting(trust), hub_from_cache(from_hub):
        return read_captioner(find_run(path).checkpoint)


def _from_tensor(tensor: Tensor, name: str) -> Image.Image:
    if tensor.dtype != torch.uint8 or tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise ValueError(_not_a_picture(tensor, name, "(1 or 3, height, width)"))
    return _from_array(tensor.cpu().movedim(0, -1).squeeze(-1).numpy(), name)


def _from_array(array: np.ndarray[Any, np.dtype[Any]], name: str) -> Image.Image:
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(_not_a_picture(array, name, "(height, width), or with 3 or 4 channels behind"))
    return to_rgb(Image.fromarray(np.ascontiguousarray(array)))


def _not_a_picture(given: Any, name: str, layout: str) -> str:
    return (
        f"The picture {name} is of {given.dtype} and shape {tuple(given.shape)}; expected uint8 from 0 to 255 and "
        f"{layout}."
    )


def _best_device() -> torch.device:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found if found is not None else torch.device("cpu")


def _check_device(device: torch.device | str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has no single one for it
        raise ValueError(
            f"The device {str(device)!r} cannot be used here: {str(error).splitlines()[0]} Expected 'cpu', or an "
            "accelerator that torch finds, such as 'cuda'; without one the best that is there is taken."
        ) from error


def _computes_in_bfloat16(device: torch.device) -> bool:
    # Not on processors, even those that can: rounded features have other nearest codes, and captions change.
    return device.type == "cuda" and bool(torch.cuda.is_bf16_supported(including_emulation=False))
