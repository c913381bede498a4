"""Datamodule of prompts to generate captions from, each with its own seed."""

from collections.abc import Sequence
from typing import Any

from synth2_lightning.concepts.prompts import PromptTemplate
from synth2_lightning.datamodules.captions import record_seed
from synth2_lightning.datamodules.predict import PredictDataModule
from synth2_lightning.interfaces import ConceptSampler, ConceptSource
from synth2_lightning.types import CLASS_NAME_SEPARATOR, Concept, PromptBatch, SampleInfo

Request = tuple[str, tuple[int, ...]]
"""A caption to generate: its key, and the indices of its concepts."""


class ConceptDataModule(PredictDataModule[Request, PromptBatch]):
    """Prompts for ``synth2 predict`` to generate captions from, each once over all ranks.

    The key of a caption is the key of its first concept and the number of earlier captions of this concept: a later
    run with more captions generates only the missing ones.

    Args:
        concepts: Source of the concepts.
        prompt: Template of the prompts.
        num_captions: Number of captions; a larger number keeps the first ones unchanged.
        sampler: Samples the concept of each caption.
        batch_size: Captions per step and rank; it does not change the captions.
        seed: Seed of the sampler, and base seed of all records.
        num_concepts: Number of concepts per caption, for templates that take fewer than their ``num_concepts``, which
            is the default.

    Raises:
        ValueError: If a number is out of range.
    """

    other_stages = (
        "Its captions do not exist yet: generate them with `synth2 predict`, synthesize images with a "
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
        num_concepts: int | None = None,
    ) -> None:
        super().__init__(batch_size)
        if num_captions < 1:
            raise ValueError(f"ConceptDataModule got num_captions={num_captions}; expected 1 or more.")
        self.num_concepts = prompt.num_concepts if num_concepts is None else num_concepts
        fewest = 0 if prompt.takes_fewer else prompt.num_concepts
        if not fewest <= self.num_concepts <= prompt.num_concepts:
            raise ValueError(
                f"ConceptDataModule got num_concepts={num_concepts}; expected {fewest} to {prompt.num_concepts}, as "
                f"the prompt {prompt.template_id!r} takes. Remove it, or use a prompt with {{names}}."
            )
        if seed < 0:
            raise ValueError(f"ConceptDataModule got seed={seed}; expected 0 or more.")
        self.concepts = concepts
        self.prompt = prompt
        self.num_captions = num_captions
        self.sampler = sampler
        self.seed = seed
        self._concepts: tuple[Concept, ...] = ()

    def provenance(self) -> dict[str, Any]:
        """Return the settings of the prompts, without their number, which may grow later, and the batch size."""
        return {
            "concepts": self.concepts.provenance(),
            "sampler": self.sampler.provenance(),
            "prompt": {**self.prompt.provenance(), "num_concepts": self.num_concepts},
            "seed": self.seed,
        }

    def list_items(self) -> list[Request]:
        """Load the concepts and sample one per caption, or two, or none.

        Raises:
            ValueError: If the prompt combines two concepts and there is only one.
        """
        self.concepts.load()
        self._concepts = tuple(self.concepts.concept(index) for index in range(len(self.concepts)))
        if self.num_concepts == 0:
            return [(f"free-{number}", ()) for number in range(self.num_captions)]
        sampled = self.sampler.sample(self._concepts, self.num_captions, self.seed)
        partners = self._sample_partners(sampled) if self.num_concepts > 1 else [()] * len(sampled)
        counts = [0] * len(self._concepts)
        requests = []
        for index, partner in zip(sampled, partners, strict=True):
            requests.append((f"{self._concepts[index].key}-{counts[index]}", (index, *partner)))
            counts[index] += 1
        return requests

    def name_items(self, items: Sequence[Request]) -> list[tuple[str, str]]:
        """Return source and key of each caption."""
        return [(self.concepts.name, key) for key, _ in items]

    def read(self, items: Sequence[Request]) -> PromptBatch:
        """Return a batch of rendered prompts."""
        prompts, samples = [], []
        for key, indices in items:
            concepts = [self._concepts[index] for index in indices]
            seed = record_seed(self.seed, key)
            prompts.append(self.prompt.render(concepts, seed))
            names = CLASS_NAME_SEPARATOR.join(concept.name for concept in concepts)
            samples.append(SampleInfo(key, self.concepts.name, names, seed))
        return PromptBatch(tuple(prompts), tuple(samples), (self.prompt.template_id,) * len(items))

    def _sample_partners(self, sampled: list[int]) -> list[tuple[int]]:
        """Sample a second concept per caption with another seed; one equal to the first is replaced by the next."""
        if len(self._concepts) < 2:
            raise ValueError(
                f"Prompt {self.prompt.template_id!r} combines two concepts, but {self.concepts.name!r} has only "
                f"{self._concepts[0].name!r}; expected two or more. Use more concepts, or a prompt for one."
            )
        seconds = self.sampler.sample(self._concepts, len(sampled), record_seed(self.seed, "partners"))
        size = len(self._concepts)
        return [
            ((second + 1) % size if second == first else second,)
            for first, second in zip(sampled, seconds, strict=True)
        ]
