"""A new head in a few lines: visual question answering on top of the captioner (see ``docs/new_head.md``).

The question travels in ``ImageTextBatch.prompts``, the answer to learn in ``captions``, all accepted answers in
``references``. Encoder, resampler and decoder stay those of the run file.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.types import ImageTextBatch, TokenLoss


class QuestionAnsweringModule(VisionLanguageModule):
    """Learns and gives short answers to questions about a picture.

    Args:
        args: Those of :class:`VisionLanguageModule`.
        question_prompt: How a question is put to the language model; ``{question}`` stands for it.
        kwargs: Those of :class:`VisionLanguageModule`.

    Raises:
        ValueError: If the prompt has no place for the question, or a batch comes without questions.

    Example:
        >>> from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler
        >>> module = QuestionAnsweringModule(TinyImageTokenizer(), TinyResampler, TinyDecoder())
        >>> module.protocol()["prompt"]
        'question: {question} answer:'
    """

    def __init__(self, *args: Any, question_prompt: str = "question: {question} answer:", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "{question}" not in question_prompt:
            raise ValueError(
                f"question_prompt is {question_prompt!r}; expected a text with {{question}} in the question's place."
            )
        self.question_prompt = question_prompt

    def compute_loss(self, visual: Float[Tensor, "batch queries width"], batch: ImageTextBatch) -> TokenLoss:
        """Likelihood of the answer, given the picture and the question."""
        return self.decoder.loss(visual, batch.captions, self._questions(batch))

    def respond(self, visual: Float[Tensor, "batch queries width"], batch: ImageTextBatch) -> tuple[str, ...]:
        """Answer."""
        return tuple(self.decoder.generate(visual, self.generation, self._questions(batch)))

    def protocol(self) -> dict[str, Any]:
        """What a reader must know about how answers were written."""
        return super().protocol() | {"prompt": self.question_prompt}

    def _questions(self, batch: ImageTextBatch) -> list[str]:
        if len(batch.prompts) != len(batch):
            raise ValueError(
                f"QuestionAnsweringModule was given {len(batch)} pictures with {len(batch.prompts)} questions; "
                "expected one each. Use data that fills ImageTextBatch.prompts."
            )
        return [self.question_prompt.format(question=question) for question in batch.prompts]
