"""Visual question answering as a head on the captioner (see ``docs/extending.md``).

``ImageTextBatch.prompts`` holds the questions, ``captions`` the answers to train on, and ``references`` all accepted
answers. Encoder, resampler and decoder are those of the run file.
"""

from collections.abc import Sequence
from string import Formatter
from typing import Any

from jaxtyping import Float
from torch import Tensor

from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.types import ImageTextBatch, TokenLoss


class QuestionAnsweringModule(VisionLanguageModule):
    """Generates short answers to questions about images.

    Args:
        args: Those of :class:`VisionLanguageModule`.
        question_prompt: Prompt of the language model; ``{question}`` is replaced by the question.
        kwargs: Those of :class:`VisionLanguageModule`.

    Raises:
        ValueError: If the prompt has another placeholder than ``{question}``, or none; on batches without one question
            per image.

    Example:
        >>> from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch
        >>> module = QuestionAnsweringModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
        >>> module.protocol()["prompt"]
        'question: {question} answer:'
        >>> len(module.caption(tiny_batch(2).image, ["what is it?", "is it bright?"]))
        2
    """

    def __init__(self, *args: Any, question_prompt: str = "question: {question} answer:", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _check_prompt(question_prompt)
        self.question_prompt = question_prompt

    def compute_loss(self, visual: Float[Tensor, "batch latents width"], batch: ImageTextBatch) -> TokenLoss:
        """Return the negative log-likelihood of each answer, given its image and its question."""
        return self.decoder.loss(visual, batch.captions, self._format(batch.prompts, len(visual)))

    def generate(self, visual: Float[Tensor, "batch latents width"], prompts: Sequence[str] | None = None) -> list[str]:
        """Return one answer per image; the prompts are its questions."""
        return super().generate(visual, self._format(prompts or (), len(visual)))

    def protocol(self) -> dict[str, Any]:
        """Return the settings that answers depend on."""
        return super().protocol() | {"prompt": self.question_prompt}

    def _format(self, questions: Sequence[str], num_images: int) -> list[str]:
        if len(questions) != num_images:
            raise ValueError(
                f"QuestionAnsweringModule got {num_images} images and {len(questions)} questions; expected one "
                "question per image. Use a source that has questions, so that they are in ImageTextBatch.prompts."
            )
        return [self.question_prompt.format(question=question) for question in questions]


def _check_prompt(prompt: str) -> None:
    try:
        fields = [part[1:] for part in Formatter().parse(prompt) if part[1] is not None]
    except ValueError:
        fields = []
    if not fields or set(fields) != {("question", "", None)}:
        raise ValueError(
            f"question_prompt is {prompt!r}; expected a text with the placeholder {{question}}, no other one, and "
            "literal braces as {{ and }}."
        )
