"""Scenes as a set of pictures with a question and its answer each."""

from synth2_lightning.scenes.questions import ask_scene
from synth2_lightning.scenes.source import ScenesSource

_NUM_ANSWERS = 10


class ScenesQuestionSource(ScenesSource):
    """The pictures of :class:`~synth2_lightning.scenes.source.ScenesSource`, with a question each instead of captions.

    The arguments are those of ``ScenesSource``. Scenes of the split ``held_out`` all hold what training lacks.

    Example:
        >>> source = ScenesQuestionSource("train", num_pictures=100)
        >>> source.prompt(17), source.captions(17)[0]
        ('which pattern is on the background?', 'plain')
    """

    def prompt(self, index: int) -> str:
        """A question about the picture."""
        return ask_scene(self.scene(index)).text

    def captions(self, index: int) -> tuple[str, ...]:
        """Its answer, ten times: in the data sets of VQA ten people answer, and the accuracy counts those who agree."""
        return (ask_scene(self.scene(index)).answer,) * _NUM_ANSWERS
