"""Prompts to have captions written for, each with a seed of its own."""

from collections.abc import Sequence
from typing import Any

from synth2_lightning.concepts.prompts import PromptTemplate
from synth2_lightning.datamodules.captions import record_seed
from synth2_lightning.datamodules.predict import PredictDataModule
from synth2_lightning.interfaces import ConceptSampler, ConceptSource
from synth2_lightning.types import CLASS_NAME_SEPARATOR, Concept, PromptBatch, SampleInfo

Ask = tuple[str, tuple[int, ...]]
"""A caption to be asked for: its key, and the indices of its concepts."""


class ConceptDataModule(PredictDataModule[Ask, PromptBatch]):
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
        >>> prompt = PromptTemplate("plain", 1, "Caption a photo of: {name}")
        >>> ConceptDataModule(TableConcepts("birds.txt"), prompt, 1000, UniformSampling()).num_captions
        1000
    """

    other_stages = (
        "Its captions are not written yet: write them with `synth2 predict`, make images of them with a "
        "CaptionDataModule, and train on the shards."
    )

    def __init__(
        self,
        concepts: ConceptSource,
        prompt: PromptTemplate,
        num_captions: int,
        sampler: ConceptSampler,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size)
        if num_captions < 1:
            raise ValueError(f"ConceptDataModule got num_captions={num_captions}; expected 1 or more.")
        self.concepts = concepts
        self.prompt = prompt
        self.num_captions = num_captions
        self.sampler = sampler
        self.seed = seed
        self._concepts: tuple[Concept, ...] = ()

    def provenance(self) -> dict[str, Any]:
        """Give what decides the prompts; not their number, which may grow later, nor the size of batches."""
        return {
            "concepts": self.concepts.provenance(),
            "sampler": self.sampler.provenance(),
            "prompt": self.prompt.provenance(),
            "seed": self.seed,
        }

    def list_items(self) -> list[Ask]:
        """Load the concepts, and sample those that captions are requested for.

        Raises:
            ValueError: If the prompt combines two concepts and there is only one.
        """
        self.concepts.load()
        self._concepts = tuple(self.concepts.concept(index) for index in range(len(self.concepts)))
        return self._draw()

    def name_items(self, items: Sequence[Ask]) -> list[tuple[str, str]]:
        """Return source and key of captions."""
        return [(self.concepts.name, key) for key, _ in items]

    def read(self, items: Sequence[Ask]) -> PromptBatch:
        """Render prompts."""
        concepts = [[self._concepts[index] for index in indices] for _, indices in items]
        samples = tuple(
            SampleInfo(
                key=key,
                source=self.concepts.name,
                class_name=CLASS_NAME_SEPARATOR.join(concept.name for concept in each),
                seed=record_seed(self.seed, key),
            )
            for (key, _), each in zip(items, concepts, strict=True)
        )
        seeds = (record_seed(self.seed, key) for key, _ in items)
        return PromptBatch(
            prompts=tuple(self.prompt.render(*each) for each in zip(concepts, seeds, strict=True)),
            samples=samples,
            templates=(self.prompt.template_id,) * len(items),
        )

    def _draw(self) -> list[Ask]:
        if self.prompt.num_concepts == 0:
            return [(f"free-{number}", ()) for number in range(self.num_captions)]
        drawn = self.sampler.sample(self._concepts, self.num_captions, self.seed)
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
        others = self.sampler.sample(self._concepts, len(drawn), record_seed(self.seed, "partners"))
        size = len(self._concepts)
        return [((other + 1) % size if other == one else other,) for one, other in zip(drawn, others, strict=True)]
