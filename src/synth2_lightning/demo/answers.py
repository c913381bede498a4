"""Everything that the page says about a picture, without the page."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from synth2_lightning.captioner import MAX_PIXELS, Captioner
from synth2_lightning.datamodules.photographs import cut_square
from synth2_lightning.demo.neighbours import Neighbour, Neighbours
from synth2_lightning.demo.word_maps import draw_map, map_words
from synth2_lightning.sources.pictures import decode_picture, pixel_limit
from synth2_lightning.types import Pixels


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said about a picture.

    Args:
        caption: Of the picture.
        words: The words of the caption, each with its map over the picture.
        words_note: Why there is no map, or none is needed.
        neighbours: Synthetic pairs that were learnt from and are most alike.
    """

    caption: str
    words: list[tuple[Image.Image, str]]
    words_note: str
    neighbours: list[Neighbour]


class Answerer:
    """Answers for the page.

    Args:
        captioner: Writes the captions.
        neighbours: Built; ``None`` where the run learnt from no synthetic pairs.
        num_neighbours: How many of them to show.

    Example:
        >>> from synth2_lightning.modules.captioning import VisionLanguageModule
        >>> from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler
        >>> captioner = Captioner(VisionLanguageModule(TinyImageTokenizer(), TinyResampler, TinyDecoder()), "cpu")
        >>> Answerer(captioner, None).answer(Path("gone.png"))
        Traceback (most recent call last):
        OSError: The picture gone.png cannot be read: FileNotFoundError: [Errno 2] No such file or directory: 'gone.png'
    """

    def __init__(self, captioner: Captioner, neighbours: Neighbours | None, num_neighbours: int = 5) -> None:
        self.captioner = captioner
        self.neighbours = neighbours
        self.num_neighbours = num_neighbours

    def answer(self, file: Path) -> Answer:
        """Caption a picture file, say where each word looked, and find what is alike.

        Raises:
            OSError: If it cannot be read; by the rules of :func:`~synth2_lightning.sources.pictures.decode_picture`.
        """
        size = self.captioner.image_size
        with pixel_limit(MAX_PIXELS):
            square = cut_square(decode_picture(file, file.name, MAX_PIXELS, wanted_size=size), size)
        caption = self.captioner.caption([square])[0]
        values = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].contiguous()
        image = Pixels(values).to(self.captioner.device)
        words, note = self._draw_words(square, image, caption)
        found = [] if self.neighbours is None else self.neighbours.find(image, self.num_neighbours)
        return Answer(caption, words, note, found)

    def _draw_words(
        self, square: Image.Image, image: Pixels, caption: str
    ) -> tuple[list[tuple[Image.Image, str]], str]:
        if not caption:
            return [], "The caption has no word."
        try:
            words, maps = map_words(self.captioner.module, image, caption)
        except (TypeError, ValueError) as error:  # parts that cannot say where they look
            return [], str(error)
        return [(draw_map(square, each, float(maps.max())), word) for word, each in zip(words, maps, strict=True)], ""
