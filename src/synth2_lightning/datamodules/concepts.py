"""Prompts to have captions written for, each with a seed of its own."""

from collections.abc import Container, Iterator, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule

from synth2_lightning.concepts.prompts import PromptTemplate
from synth2_lightning.datamodules.captions import record_seed
from synth2_lightning.datamodules.sampling import PredictionSampler
from synth2_lightning.interfaces import ConceptSampler, ConceptSource
from synth2_lightning.types import CLASS_NAME_SEPARATOR, Concept, PromptBatch

Ask = tuple[str, tuple[int, ...]]
"""A caption to be asked for: its key, and the indices of its concepts."""


class PromptBatches:
    """The batches of one rank, to be gone through once; rendering a prompt is no work that a worker could take over.

    Args:
        concepts: All of them.
        name: What their source is called.
        prompt: How they are asked for.
        asks: Captions of all ranks.
        sampler: Deals them out.
        seed: What the seeds of all records come from.
    """

    def __init__(
        self,
        concepts: Sequence[Concept],
        name: str,
        prompt: PromptTemplate,
        asks: Sequence[Ask],
        sampler: PredictionSampler,
        seed: int,
    ) -> None:
        self.concepts = concepts
        self.name = name
        self.prompt = prompt
        self.asks = asks
        self._sampler = sampler
        self.seed = seed

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._sampler)

    def __iter__(self) -> Iterator[PromptBatch]:
        """Give the batches."""
        for positions in self._sampler:
            keys = tuple(self.asks[position][0] for position in positions)
            asked = [[self.concepts[index] for index in self.asks[position][1]] for position in positions]
            seeds = tuple(record_seed(self.seed, key) for key in keys)
            yield PromptBatch(
                prompts=tuple(self.prompt.render(*each) for each in zip(asked, seeds, strict=True)),
                keys=keys,
                sources=(self.name,) * len(keys),
                class_names=tuple(
                    CLASS_NAME_SEPARATOR.join(concept.name for concept in concepts) for concepts in asked
                ),
                templates=(self.prompt.template_id,) * len(keys),
                seeds=seeds,
            )


class ConceptDataModule(LightningDataModule):
    """Prompts for ``synth2 predict`` to have captions written for, each once over all ranks.

    The key of a caption is that of its first concept and how many captions of it were drawn before: a set may be given
    more captions later, and asks only for those that it lacks.

    Args:
        concepts: What captions are asked for.
        prompt: How they are asked for.
        num_captions: How many captions are asked for; the first ones are the same whatever their number.
        sampler: Which concepts, and how often each.
        batch_size: Captions per step and rank; it changes no caption.
        seed: What the draw and the seeds of all records come from.

    Raises:
        ValueError: If a number is below one.

    Example:
        >>> from synth2_lightning.concepts.sampling import UniformSampling
        >>> from synth2_lightning.concepts.table import TableConcepts
        >>> prompt = PromptTemplate("plain", 1, "Caption a photograph of: {name}")
        >>> ConceptDataModule(TableConcepts("birds.txt"), prompt, 1000, UniformSampling()).num_captions
        1000
    """

    def __init__(
        self,
        concepts: ConceptSource,
        prompt: PromptTemplate,
        num_captions: int,
        sampler: ConceptSampler,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__()
        # More ranks than captions: those without one have nothing to do, and that is no error.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        for name, value in (("num_captions", num_captions), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"ConceptDataModule got {name}={value}; expected 1 or more.")
        self.concepts = concepts
        self.prompt = prompt
        self.num_captions = num_captions
        self.sampler = sampler
        self.batch_size = batch_size
        self.seed = seed
        self._concepts: tuple[Concept, ...] = ()
        self._asks: list[Ask] = []

    def provenance(self) -> dict[str, Any]:
        """Give what decides the prompts; not their number, which may grow later, nor the size of batches."""
        return {
            "concepts": self.concepts.provenance(),
            "sampler": self.sampler.provenance(),
            "prompt": self.prompt.provenance(),
            "seed": self.seed,
        }

    def setup(self, stage: str) -> None:
        """Read the concepts and draw.

        Raises:
            ValueError: If the run is no prediction, or two concepts are to be put together and there is only one.
        """
        if stage != "predict":
            raise ValueError(
                f"ConceptDataModule has nothing for {stage!r}: its captions are not written yet. Have them written by "
                "`synth2 predict`, make pictures of them with a CaptionDataModule, and learn from the shards."
            )
        self.concepts.load()
        self._concepts = tuple(self.concepts.concept(index) for index in range(len(self.concepts)))
        self._asks = self._draw()

    def leave_out(self, records: Container[tuple[str, str]]) -> None:
        """Leave records, named by source and key, out of the prediction that was set up."""
        self._asks = [ask for ask in self._asks if (self.concepts.name, ask[0]) not in records]

    def predict_dataloader(self) -> PromptBatches:
        """Give this rank's prompts."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = PredictionSampler(len(self._asks), self.batch_size, rank, world_size)
        return PromptBatches(self._concepts, self.concepts.name, self.prompt, self._asks, sampler, self.seed)

    def _draw(self) -> list[Ask]:
        if self.prompt.num_concepts == 0:
            return [(f"free-{number}", ()) for number in range(self.num_captions)]
        drawn = self.sampler.draw(self._concepts, self.num_captions, self.seed)
        partners = self._draw_partners(drawn) if self.prompt.num_concepts > 1 else [()] * len(drawn)
        counts = [0] * len(self._concepts)
        asks = []
        for index, others in zip(drawn, partners, strict=True):
            asks.append((f"{self._concepts[index].key}-{counts[index]}", (index, *others)))
            counts[index] += 1
        return asks

    def _draw_partners(self, drawn: list[int]) -> list[tuple[int]]:
        """Draw another concept for each, by another seed; where the sampler gives the same one, the next is taken."""
        if len(self._concepts) < 2:
            raise ValueError(
                f"Prompt {self.prompt.template_id!r} puts two concepts together, and {self.concepts.name!r} has only "
                f"{self._concepts[0].name!r}; expected two or more. Use more concepts, or a prompt for one."
            )
        others = self.sampler.draw(self._concepts, len(drawn), record_seed(self.seed, "partners"))
        size = len(self._concepts)
        return [((other + 1) % size if other == one else other,) for one, other in zip(drawn, others, strict=True)]
