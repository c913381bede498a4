"""Captioning images with a trained captioner."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image

from synth2_lightning.export.devices import best_device, check_device, computes_in_bfloat16
from synth2_lightning.export.exported import load_exported, save_captioner
from synth2_lightning.export.folder import is_exported
from synth2_lightning.export.hub import locate_export
from synth2_lightning.export.image_inputs import MAX_PIXELS, ImageLike, read_image
from synth2_lightning.export.push import push_captioner
from synth2_lightning.export.runs import find_run
from synth2_lightning.io.fingerprints import fingerprint_weights
from synth2_lightning.io.locations import hub_from_cache
from synth2_lightning.io.trusted_packages import trusting
from synth2_lightning.modules.captioner_checkpoint import read_captioner
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.sources.images import center_crop, pixel_limit
from synth2_lightning.sources.read_ahead import read_ahead
from synth2_lightning.types import Pixels

Item = TypeVar("Item")

BATCH_SIZE = 64
"""Default number of images per batch."""

_MAX_READERS = 8


class Captioned(NamedTuple):
    """The caption of an image, or the error by which it could not be read.

    Attributes:
        caption: Empty if there is an error.
        error: ``None`` if there is none.
    """

    caption: str
    error: OSError | None = None


class Captioner:
    """Captions images in batches; reads the next images while a batch is processed.

    Images are preprocessed as in validation: the shorter side is resized to the encoder's image size, and the center
    square is cropped. On a GPU with bfloat16 support, the model runs under bfloat16 autocast; on a CPU, in float32.

    Args:
        module: A captioner with its weights.
        device: Device of the model; by default the accelerator if there is one, or else the CPU.
        num_beams: Number of beams; by default that of the run.
        max_new_tokens: Maximum number of tokens of a caption; by default that of the run.

    Raises:
        ValueError: If ``num_beams`` or ``max_new_tokens`` is below one, or the device is not available.

    Example:
        >>> from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler
        >>> captioner = Captioner(VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder()))
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
        self.device = best_device() if device is None else check_device(device)
        self.module = module.eval().to(self.device)
        self.image_size = module.image_encoder.image_size
        self._in_half = computes_in_bfloat16(self.device)

    @classmethod
    def from_pretrained(
        cls,
        location: str | Path,
        device: torch.device | str | None = None,
        num_beams: int | None = None,
        max_new_tokens: int | None = None,
        trust: Collection[str] = (),
        from_hub: Collection[str] = (),
    ) -> "Captioner":
        """Load a trained captioner, as ``synth2_lightning.load`` does.

        Args:
            location: A checkpoint, the folder of a run (its best checkpoint, or else its last one), an export, or the
                name of an export on the Hugging Face Hub, ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` with a branch, tag
                or commit. Existing paths take precedence. Relative paths in a run are resolved from the working
                directory, as in training.
            device: As for :class:`Captioner`.
            num_beams: As for :class:`Captioner`.
            max_new_tokens: As for :class:`Captioner`.
            trust: As for :func:`load_module`.
            from_hub: As for :func:`load_module`.

        Raises:
            FileNotFoundError: If the location does not exist, or a file of the run is missing.
            OSError: If the Hub cannot be reached, or has no such export.
            ValueError: As for :func:`load_module`.
        """
        return cls(load_module(location, trust, from_hub), device, num_beams, max_new_tokens)

    def save_pretrained(self, folder: str | Path, license: str | None = None, cards: Sequence[str | Path] = ()) -> Path:
        """Write the captioner to a folder, as ``synth2 export`` does, and return the folder.

        Arguments and errors are those of :func:`~synth2_lightning.export.exported.save_captioner`.
        """
        return save_captioner(self.module, folder, license, cards)

    def push_to_hub(
        self,
        repository: str,
        license: str | None = None,
        cards: Sequence[str | Path] = (),
        private: bool = False,
        branch: str | None = None,
    ) -> str:
        """Upload the captioner to the Hugging Face Hub, as ``synth2 export`` and ``synth2 push`` do.

        Args:
            repository: ``OWNER/NAME``; created if it does not exist.
            license: As for :func:`~synth2_lightning.export.exported.save_captioner`.
            cards: As for :func:`~synth2_lightning.export.exported.save_captioner`.
            private: Whether a new repository is private.
            branch: Branch to upload to; created if it does not exist.

        Returns:
            URL of the commit.

        Raises:
            OSError: If the Hub cannot be reached, or refuses the upload.
            ValueError: If the name is not of the form ``OWNER/NAME``, or a component cannot be described.
        """
        return push_captioner(self.module, repository, license, cards, private, branch)

    def caption(
        self, images: Sequence[ImageLike], batch_size: int = BATCH_SIZE, max_pixels: int = MAX_PIXELS
    ) -> list[str]:
        """Return one caption per image.

        Args:
            images: Images of any size: paths, PIL images, arrays or tensors of uint8.
            batch_size: Number of images per batch.
            max_pixels: Maximum number of pixels of a file.

        Raises:
            OSError: If an image cannot be read, with its name and the reason.
            TypeError: If ``images`` is a single path or image instead of a sequence.
            ValueError: If an array or a tensor has another dtype or shape, or ``batch_size`` is below one.
        """
        is_one = isinstance(images, np.ndarray | torch.Tensor) and images.ndim < 4  # whose rows are no images
        if is_one or isinstance(images, (str, Path, Image.Image)):
            raise TypeError(f"caption() got one {type(images).__name__}; expected a sequence, such as [image].")

        def read(numbered: tuple[int, ImageLike]) -> Image.Image:
            return read_image(numbered[1], f"number {numbered[0]}", self.image_size, max_pixels)

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
        """Yield captions batch by batch; images that cannot be read come with their error.

        Args:
            items: Names of the images or any other objects; consumed as needed.
            read: Returns the RGB image of an item, or raises an ``OSError``; called in several threads.
            batch_size: Number of readable images per batch.

        Yields:
            The items of each batch in their order, unreadable ones included.

        Raises:
            ValueError: If the batch size is below one.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected 1 or more.")

        def read_square(item: Item) -> Image.Image:
            return center_crop(read(item), self.image_size)

        num_threads = min(os.cpu_count() or 1, _MAX_READERS)
        batch: list[tuple[Item, Image.Image | OSError]] = []
        num_readable = 0
        for item, content in read_ahead(items, read_square, num_threads, num_ahead=2 * batch_size):
            batch.append((item, content))
            num_readable += isinstance(content, Image.Image)
            if num_readable == batch_size:
                yield self._caption_batch(batch)
                batch, num_readable = [], 0
        if batch:
            yield self._caption_batch(batch)

    def provenance(self) -> dict[str, Any]:
        """Return what captions depend on: the fingerprint of all weights, and the parameters of the decoding."""
        return {
            "captioner": fingerprint_weights("captioner", self.module),
            "generation": asdict(self.module.generation),
        }

    def _caption_batch(self, batch: Sequence[tuple[Item, Image.Image | OSError]]) -> list[tuple[Item, Captioned]]:
        captions = iter(self._caption_squares([content for _, content in batch if isinstance(content, Image.Image)]))
        return [
            (item, Captioned("", content) if isinstance(content, OSError) else Captioned(next(captions)))
            for item, content in batch
        ]

    def _caption_squares(self, squares: Sequence[Image.Image]) -> list[str]:
        if not squares:
            return []
        values = torch.from_numpy(np.stack([np.asarray(square) for square in squares])).permute(0, 3, 1, 2)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_half):
            return self.module.caption(Pixels(values.contiguous()))


def load(
    location: str | Path,
    device: torch.device | str | None = None,
    num_beams: int | None = None,
    max_new_tokens: int | None = None,
    trust: Collection[str] = (),
    from_hub: Collection[str] = (),
) -> Captioner:
    """Load a trained captioner by :meth:`Captioner.from_pretrained`; ``synth2_lightning.load`` is this function."""
    return Captioner.from_pretrained(location, device, num_beams, max_new_tokens, trust, from_hub)


def load_module(
    location: str | Path, trust: Collection[str] = (), from_hub: Collection[str] = ()
) -> VisionLanguageModule:
    """Load the module of a trained captioner to the CPU.

    Args:
        location: As for :meth:`Captioner.from_pretrained`.
        trust: Top-level packages whose classes the run may name, besides this package, torch, lightning and
            transformers: those of your own decoder or head.
        from_hub: Names of models on the Hugging Face Hub that may be downloaded. By default a checkpoint reads them
            from the local cache, and an export refuses them.

    Raises:
        FileNotFoundError: If the location does not exist, or a file of the run is missing.
        ValueError: If it is not a checkpoint of a captioner, does not record the arguments of its components, or names
            classes of packages that are not trusted.
    """
    path = locate_export(location)
    if is_exported(path):
        return load_exported(path, trust, from_hub=from_hub)
    with trusting(trust), hub_from_cache(from_hub):
        return read_captioner(find_run(path).checkpoint)
