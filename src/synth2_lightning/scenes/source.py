"""Scenes as a set of pictures with captions, drawn when asked for."""

from PIL import Image

from synth2_lightning.fingerprints import fingerprint_texts
from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.scenes.drawing import draw_scene
from synth2_lightning.scenes.grammar import describe_scene
from synth2_lightning.scenes.world import Scene, Split, scene_at


class ScenesSource(ImageTextSource):
    """The embedded world: pictures of coloured shapes with five captions each, which need no download.

    Some combinations of shape and colour, and of relation and shapes, occur in ``val`` and ``test`` only (see
    :func:`~synth2_lightning.scenes.world.is_held_out`): what is scored is composition, not memory. Scores are measured
    in the world of seed 0, so only its ``val`` and ``test`` are evaluation splits. Those of another seed are other
    scenes; what learns from them, or from their captions, meets combinations that ``train`` lacks, and is then no
    longer judged by composition alone.

    Args:
        split: ``train``, ``val``, ``test``, or ``held_out``, whose scenes all hold what training lacks.
        num_pictures: How many; the first ones are the same, however many there are.
        seed: Other seeds are other worlds of the same kind.
        name: What logs and shards call it; losses are logged per name.

    Raises:
        ValueError: If no picture is asked for.

    Example:
        >>> source = ScenesSource("train", num_pictures=100)
        >>> source.key(17)
        'scenes-train-000017'
    """

    def __init__(self, split: Split, num_pictures: int, seed: int = 0, name: str = "scenes") -> None:
        if num_pictures < 1:
            raise ValueError(f"ScenesSource.num_pictures is {num_pictures}; expected 1 or more.")
        self.split = split
        self.is_evaluation = split != "train" and seed == 0
        self.num_pictures = num_pictures
        self.seed = seed
        self.name = name

    def load(self) -> None:
        """Do nothing: there is no index to read."""

    def __len__(self) -> int:
        """Number of pictures."""
        return self.num_pictures

    def key(self, index: int) -> str:
        """The picture's id."""
        return f"{self.name}-{self.split}-{self._checked(index):06d}"

    def captions(self, index: int) -> tuple[str, ...]:
        """Five captions."""
        return describe_scene(self.scene(index))

    def fingerprint(self) -> str:
        """Return a checksum of the captions of 100 pictures: split, seed and number decide all the others."""
        sample = range(0, len(self), -(-len(self) // 100))
        texts = [text for index in sample for text in (self.prompt(index) or "", *self.captions(index))]
        return fingerprint_texts([f"{self.split} {self.seed} {len(self)}", *texts])

    def picture(self, index: int) -> Image.Image:
        """Draw a picture, 64 by 64 pixels."""
        return draw_scene(self.scene(index))

    def scene(self, index: int) -> Scene:
        """What the picture shows, before it is drawn or described."""
        return scene_at(self.split, self._checked(index), self.seed)

    def _checked(self, index: int) -> int:
        if not 0 <= index < self.num_pictures:
            raise IndexError(
                f"ScenesSource {self.split!r} has no picture {index}; expected 0 to {self.num_pictures - 1}."
            )
        return index
