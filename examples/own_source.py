"""A data set of your own; with ``PYTHONPATH=examples`` and ``--trust own_source``, a run file names ``FlagSource``."""

from itertools import permutations

from PIL import Image

from synth2_lightning.interfaces import ImageTextSource


class FlagSource(ImageTextSource):
    """Flags with two colors, side by side."""

    name = "flags"

    def __init__(self, size: int = 64) -> None:
        self.size = size
        self.flags = list(permutations(("black", "blue", "green", "red", "white", "yellow"), 2))

    def __len__(self) -> int:
        return len(self.flags)

    def key(self, index: int) -> str:
        return "-".join(self.flags[index])

    def captions(self, index: int) -> tuple[str, ...]:
        left, right = self.flags[index]
        return f"{left} to the left and {right} to the right", f"the left side is {left} and the right is {right}"

    def image(self, index: int) -> Image.Image:
        left, right = self.flags[index]
        flag = Image.new("RGB", (self.size, self.size), left)
        flag.paste(right, (self.size // 2, 0, self.size, self.size))
        return flag
