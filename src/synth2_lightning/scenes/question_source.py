"""Visual question answering dataset of scenes."""

import numpy as np
from numpy.typing import NDArray

from synth2_lightning.scenes.questions import ask_scene
from synth2_lightning.scenes.source import ScenesSource

_NUM_ANSWERS = 10


class ScenesQuestionSource(ScenesSource):
    """The images of :class:`~synth2_lightning.scenes.source.ScenesSource`, with one question each instead of captions.

    The arguments are those of ``ScenesSource``.

    Example:
        >>> source = ScenesQuestionSource("train", num_images=100)
        >>> source.prompt(17), source.captions(17)[0]
        ('which pattern is on the background?', 'plain')
    """

    def prompt(self, index: int) -> str:
        """Return a question about the image."""
        return ask_scene(self.scene(index)).text

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the answer ten times, because VQA accuracy compares with the answers of ten annotators."""
        return (ask_scene(self.scene(index)).answer,) * _NUM_ANSWERS

    def count_captions(self) -> NDArray[np.int64]:
        """Return ten for each image."""
        return np.full(len(self), _NUM_ANSWERS)
