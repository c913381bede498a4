"""Fine-tuning of a language model on captions, after which it writes captions in their style."""

from collections.abc import Sequence
from typing import TypedDict

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import AdamW

from synth2_lightning.concepts.prompts import PromptTemplate
from synth2_lightning.interfaces import PromptedLanguageModel
from synth2_lightning.metrics.token_loss import MeanTokenLoss
from synth2_lightning.modules.base import BaseModule
from synth2_lightning.modules.exports import export_folder
from synth2_lightning.training.divergence import check_finite_weights
from synth2_lightning.training.optimizers import OptimizerFactory, SchedulerFactory
from synth2_lightning.training.seeding import seed_of_key
from synth2_lightning.types import Concept, ConceptCaptionBatch, GenerationSettings, Prompt, TokenLoss

_NUM_UNIFORM = 4  # random numbers per caption that select its concepts


class PromptOutput(TypedDict):
    """Output of ``validation_step``: the concepts in each prompt, the prompts, and the captions that answer them."""

    concepts: tuple[tuple[Concept, ...], ...]
    prompts: tuple[Prompt, ...]
    captions: tuple[str, ...]


class LanguageModelingModule(BaseModule):
    """Fine-tunes a causal language model to answer prompts of concepts with captions that name them.

    Each caption is the answer to a prompt with one or two of its concepts, or with none. Which ones is sampled in each
    training step, and follows from the caption's key in validation. The loss is the mean negative log-likelihood of the
    tokens of captions and the end-of-text tokens after them; tokens of prompts have none (causal language modeling, as
    in supervised fine-tuning).

    At the end of the fit the model is written, low-rank updates merged, for
    :class:`~synth2_lightning.generators.language_model.LanguageModelCaptionGenerator`. Generate with the same template:
    name the run file of ``prompt`` as the ``prompt`` of a
    :class:`~synth2_lightning.datamodules.concepts.ConceptDataModule`.

    Args:
        language_model: The language model, with LoRA or all weights trainable.
        prompt: Template with ``{names}`` in its request, for any number of concepts up to its ``num_concepts``.
        concept_dropout: Fraction of the captions whose prompt has no concepts, 0 to 1.
        generation: Decoding settings of samples in validation.
        export_to: Folder that the model is written to; by default ``language_model/`` in the log folder.
        optimizer: See :class:`BaseModule`.
        lr_scheduler: See :class:`BaseModule`.

    Raises:
        ValueError: If the fraction is out of range, or the template has a fixed number of concepts.
    """

    def __init__(
        self,
        language_model: PromptedLanguageModel,
        prompt: PromptTemplate,
        concept_dropout: float = 0.1,
        generation: GenerationSettings = GenerationSettings(do_sample=True, temperature=0.7),  # noqa: B008 - frozen
        export_to: str | None = None,
        optimizer: OptimizerFactory = AdamW,
        lr_scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        if not 0 <= concept_dropout <= 1:
            raise ValueError(
                f"LanguageModelingModule got concept_dropout={concept_dropout}; expected a fraction from 0 to 1."
            )
        if not prompt.takes_fewer:
            raise ValueError(
                f"LanguageModelingModule got the prompt {prompt.template_id!r} with the request {prompt.request!r} and "
                f"{len(prompt.openings)} openings; expected a request with the single placeholder {{names}}, for any "
                "number of concepts, and no openings. See prompts/words.yaml."
            )
        self.prompt = prompt
        self.concept_dropout = concept_dropout
        self.generation = generation
        self.export_to = export_to
        self.language_model = language_model
        self.token_loss = MeanTokenLoss()

    def training_step(self, batch: ConceptCaptionBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, given prompts of sampled concepts."""
        uniform = self.sample_rows(len(batch), _NUM_UNIFORM)
        concepts, prompts = self._make_prompts(batch, uniform)
        loss, mean = self.mean_over_ranks(self.language_model.loss(prompts, batch.captions))
        metrics: dict[str, Tensor | float] = {
            "train/loss": mean,
            "train/with_concepts": sum(map(bool, concepts)) / len(batch),
        }
        self.log_training(metrics, len(batch), shown=("train/loss",))
        return loss

    def validation_step(self, batch: ConceptCaptionBatch, batch_idx: int) -> PromptOutput:
        """Measure the loss; the prompts are the same in all epochs and on any number of ranks."""
        uniform = torch.stack([torch.rand(_NUM_UNIFORM, generator=_seeded(key)) for key in batch.keys])
        concepts, prompts = self._make_prompts(batch, uniform)
        self.token_loss.update(batch.keys, self._measure(prompts, batch.captions))
        self.log("val/loss", self.token_loss, prog_bar=True, on_step=False, on_epoch=True)
        return PromptOutput(concepts=concepts, prompts=prompts, captions=batch.captions)

    def on_validation_epoch_end(self) -> None:
        """Run at the end of a validation: logs the perplexity, the exponential of the loss."""
        self.log("val/perplexity", self.token_loss.compute().exp(), prog_bar=True, sync_dist=True)

    def answer(self, prompts: Sequence[Prompt]) -> list[str]:
        """Return an answer to each prompt; all ranks must call it together if the weights are sharded."""
        return self.language_model.generate(prompts, self.generation)

    def on_fit_end(self) -> None:
        """Run at the end of a fit: writes the fine-tuned language model."""
        check_finite_weights(self)
        folder = export_folder(self.trainer, self.export_to, "language_model")
        if self.trainer.is_global_zero:
            self.language_model.export(folder)

    @torch.no_grad()
    def _measure(self, prompts: Sequence[Prompt], captions: Sequence[str]) -> TokenLoss:
        return self.language_model.loss(prompts, captions)

    def _make_prompts(
        self, batch: ConceptCaptionBatch, uniform: Float[Tensor, "batch numbers"]
    ) -> tuple[tuple[tuple[Concept, ...], ...], tuple[Prompt, ...]]:
        concepts = tuple(
            select_concepts(found, numbers, self.prompt.num_concepts, self.concept_dropout)
            for found, numbers in zip(batch.concepts, uniform.tolist(), strict=True)
        )
        return concepts, tuple(self.prompt.render(each) for each in concepts)


def select_concepts(
    concepts: Sequence[Concept], uniform: Sequence[float], most: int, dropout: float
) -> tuple[Concept, ...]:
    """Return up to two different concepts in random order; each number up to ``most`` is equally likely.

    Args:
        concepts: Concepts of a caption.
        uniform: Four random numbers in [0, 1).
        most: Maximum number of concepts: 0, 1 or 2.
        dropout: Probability of none.

    Example:
        >>> concepts = [Concept(name, name) for name in ("dog", "ball", "lawn")]
        >>> [concept.name for concept in select_concepts(concepts, (0.5, 0.5, 0.9, 0.0), most=2, dropout=0.1)]
        ['lawn', 'dog']
    """
    size = len(concepts)
    if uniform[0] < dropout or not min(most, size):
        return ()
    num_selected = 1 + int(uniform[1] * min(most, size))
    first = int(uniform[2] * size)
    second = (first + 1 + int(uniform[3] * (size - 1))) % size
    return (concepts[first], concepts[second])[:num_selected]


def _seeded(key: str) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of_key(key))
