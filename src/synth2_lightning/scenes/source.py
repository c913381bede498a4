"""Captioning dataset of scenes, rendered on access."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.io.fingerprints import fingerprint_texts
from synth2_lightning.scenes.drawing import draw_scene
from synth2_lightning.scenes.grammar import describe_scene
from synth2_lightning.scenes.world import Scene, Split, scene_at

_NUM_CAPTIONS = 5


class ScenesSource(ImageTextSource):
    """Generated images of colored shapes with five captions each; nothing is downloaded.

    Some combinations of shape and color, and of relation and shapes, occur in ``val``, ``test`` and ``held_out`` only
    (see :func:`~synth2_lightning.scenes.world.is_held_out`), so that scores measure compositional generalization. Only
    these three splits of seed 0 are evaluation splits. With other seeds they are other scenes; a model trained on
    them, or on their captions, was trained on the held-out combinations.

    Args:
        split: ``train``, ``val``, ``test``, or ``held_out``, whose scenes all have a held-out combination.
        num_images: Number of images; a larger number appends images.
        seed: Seed of the scenes.
        name: Name in logs, losses and shards.

    Raises:
        ValueError: If ``num_images`` is below one.

    Example:
        >>> source = ScenesSource("train", num_images=100)
        >>> source.key(17)
        'scenes-train-000017'
    """

    def __init__(self, split: Split, num_images: int, seed: int = 0, name: str = "scenes") -> None:
        if num_images < 1:
            raise ValueError(f"ScenesSource.num_images is {num_images}; expected 1 or more.")
        self.split = split
        self.is_evaluation = split != "train" and seed == 0
        self.num_images = num_images
        self.seed = seed
        self.name = name

    def __len__(self) -> int:
        return self.num_images

    def key(self, index: int) -> str:
        """Return the image's id."""
        return f"{self.name}-{self.split}-{self._checked(index):06d}"

    def captions(self, index: int) -> tuple[str, ...]:
        """Return five captions."""
        return describe_scene(self.scene(index), _NUM_CAPTIONS)

    def count_captions(self) -> NDArray[np.int64]:
        """Return five for each image."""
        return np.full(len(self), _NUM_CAPTIONS)

    def fingerprint(self) -> str:
        """Return a checksum of split, seed, number of images, and the captions of 100 images."""
        sample = range(0, len(self), -(-len(self) // 100))
        texts = [text for index in sample for text in (self.prompt(index) or "", *self.captions(index))]
        return fingerprint_texts([f"{self.split} {self.seed} {len(self)}", *texts])

    def image(self, index: int) -> Image.Image:
        """Return an image of 64 by 64 pixels."""
        return draw_scene(self.scene(index))

    def scene(self, index: int) -> Scene:
        """Return the scene of an image."""
        return scene_at(self.split, self._checked(index), self.seed)

    def _checked(self, index: int) -> int:
        if not 0 <= index < self.num_images:
            raise IndexError(f"ScenesSource {self.split!r} has no image {index}; expected 0 to {self.num_images - 1}.")
        return index
