"""The contents of the demo page for an image."""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image

from synth2_lightning.demo.neighbors import Neighbor, Neighbors
from synth2_lightning.demo.word_maps import draw_map, map_words
from synth2_lightning.export.captioner import Captioner
from synth2_lightning.export.image_inputs import MAX_PIXELS
from synth2_lightning.sources.images import center_crop, decode_image, pixel_limit
from synth2_lightning.types import Pixels


@dataclass(frozen=True, slots=True)
class Answer:
    """A caption, its attention maps, and similar training pairs.

    Args:
        caption: Caption of the image.
        words: Words of the caption, each with its attention map over the image.
        words_note: The reason, if there are no maps.
        neighbors: The most similar synthetic pairs of the training data.
    """

    caption: str
    words: list[tuple[Image.Image, str]]
    words_note: str
    neighbors: list[Neighbor]


class Answerer:
    """Computes the contents of the demo page, for one image at a time.

    Args:
        captioner: Generates the captions.
        neighbors: Index of the synthetic pairs, already built; ``None`` if the run was trained without them.
        num_neighbors: Number of similar pairs per image.

    Example:
        >>> from synth2_lightning.modules.captioning import VisionLanguageModule
        >>> from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler
        >>> captioner = Captioner(VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder()), "cpu")
        >>> Answerer(captioner, None).answer(Path("gone.png"))
        Traceback (most recent call last):
        OSError: The image gone.png cannot be read: FileNotFoundError: [Errno 2] No such file or directory: 'gone.png'
    """

    def __init__(self, captioner: Captioner, neighbors: Neighbors | None, num_neighbors: int = 5) -> None:
        self.captioner = captioner
        self.neighbors = neighbors
        self.num_neighbors = num_neighbors
        self._running = Lock()

    def answer(self, file: Path) -> Answer:
        """Caption an image file, compute the attention map of each word, and find similar pairs.

        Raises:
            OSError: If the file cannot be read; see :func:`~synth2_lightning.sources.images.decode_image`.
        """
        with self._running:
            return self._compute(file)

    def close(self) -> None:
        """Wait for the running answer, and start no other: the process aborts if it exits while torch computes."""
        self._running.acquire()

    def _compute(self, file: Path) -> Answer:
        size = self.captioner.image_size
        with pixel_limit(MAX_PIXELS):
            square = center_crop(decode_image(file, file.name, MAX_PIXELS, wanted_size=size), size)
        caption = self.captioner.caption([square])[0]
        values = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].contiguous()
        image = Pixels(values).to(self.captioner.device)
        words, note = self._draw_words(square, image, caption)
        found = [] if self.neighbors is None else self.neighbors.find(image, self.num_neighbors)
        return Answer(caption, words, note, found)

    def _draw_words(
        self, square: Image.Image, image: Pixels, caption: str
    ) -> tuple[list[tuple[Image.Image, str]], str]:
        if not caption:
            return [], "The caption is empty."
        try:
            words, maps = map_words(self.captioner.module, image, caption)
        except (TypeError, ValueError) as error:  # components without attention weights
            return [], str(error)
        return [(draw_map(square, each, float(maps.max())), word) for word, each in zip(words, maps, strict=True)], ""
