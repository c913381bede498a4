"""Which concepts captions are asked for: all alike, branch by branch, or as common as they are."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from synth2_lightning.interfaces import ConceptSampler
from synth2_lightning.types import Concept


class UniformSampling(ConceptSampler):
    """Every concept once in shuffled order, before any comes twice.

    Example:
        >>> concepts = [Concept(name, name) for name in ("dog", "cat", "bus")]
        >>> sorted(UniformSampling().draw(concepts, 3, seed=0))
        [0, 1, 2]
    """

    def draw(self, concepts: Sequence[Concept], count: int, seed: int) -> list[int]:
        """Give indices of concepts, one per caption.

        Raises:
            ValueError: If there are no concepts.
        """
        _check(concepts)
        return list(islice(_shuffled_passes(range(len(concepts)), np.random.default_rng(seed)), count))

    def provenance(self) -> dict[str, Any]:
        """Give the name of the rule: it has no arguments."""
        return {"sampler": "uniform"}


class BalancedSampling(ConceptSampler):
    """Branches take turns, in shuffled passes; within each, every concept once before any comes twice.

    ImageNet-21k has far more plants than places: by turns, both are asked for equally often.

    Args:
        min_concepts: Smaller branches take no turns of their own, but one together: a branch of one concept would have
            it repeated as often as all plants come.

    Raises:
        ValueError: If ``min_concepts`` is below one.

    Example:
        >>> concepts = [Concept(name, name, branch="animal") for name in ("dog", "cat", "fox")]
        >>> concepts.append(Concept("bus", "bus", branch="artifact"))
        >>> BalancedSampling().draw(concepts, 6, seed=0).count(3)
        3
    """

    def __init__(self, min_concepts: int = 1) -> None:
        if min_concepts < 1:
            raise ValueError(f"BalancedSampling got min_concepts={min_concepts}; expected 1 or more.")
        self.min_concepts = min_concepts

    def draw(self, concepts: Sequence[Concept], count: int, seed: int) -> list[int]:
        """Give indices of concepts, one per caption.

        Raises:
            ValueError: If there are no concepts.
        """
        _check(concepts)
        branches = defaultdict(list)
        for index, concept in enumerate(concepts):
            branches[concept.branch].append(index)
        groups = [members for members in branches.values() if len(members) >= self.min_concepts]
        if small := [index for members in branches.values() if len(members) < self.min_concepts for index in members]:
            groups.append(small)
        generator = np.random.default_rng(seed)
        # One generator per branch: how its concepts follow each other depends on no other branch.
        streams = [
            _shuffled_passes(members, stream)
            for members, stream in zip(groups, generator.spawn(len(groups)), strict=True)
        ]
        return [next(streams[turn]) for turn in islice(_shuffled_passes(range(len(groups)), generator), count)]

    def provenance(self) -> dict[str, Any]:
        """Give the argument."""
        return {"sampler": "balanced", "min_concepts": self.min_concepts}


class WeightedSampling(ConceptSampler):
    """Each concept as often as its weight to a power says, drawn with replacement.

    Args:
        exponent: 1 keeps the proportions of the weights, 0.5 flattens them, 0 draws all alike.

    Raises:
        ValueError: If the exponent is negative.

    Example:
        >>> concepts = [Concept("dog", "dog", weight=999.0), Concept("axolotl", "axolotl", weight=1.0)]
        >>> WeightedSampling().draw(concepts, 5, seed=0)
        [0, 0, 0, 0, 0]
    """

    def __init__(self, exponent: float = 1.0) -> None:
        if exponent < 0:
            raise ValueError(
                f"WeightedSampling got exponent={exponent}; expected 0 or more (below 0, the rarest would come most)."
            )
        self.exponent = exponent

    def draw(self, concepts: Sequence[Concept], count: int, seed: int) -> list[int]:
        """Give indices of concepts, one per caption.

        Raises:
            ValueError: If there are no concepts, or a weight is not above 0.
        """
        _check(concepts)
        weights = np.array([concept.weight for concept in concepts])
        if not (np.isfinite(weights) & (weights > 0)).all():
            bad = concepts[int(np.argmin(np.isfinite(weights) & (weights > 0)))]
            raise ValueError(f"The concept {bad.name!r} has the weight {bad.weight}; expected a number above 0.")
        edges = np.cumsum((weights / weights.max()) ** self.exponent)
        # One number per caption, whatever the count: so a longer draw begins like a shorter one.
        places = np.random.default_rng(seed).random(count) * edges[-1]
        found = np.minimum(np.searchsorted(edges, places, side="right"), len(concepts) - 1)
        return [int(index) for index in found]

    def provenance(self) -> dict[str, Any]:
        """Give the argument."""
        return {"sampler": "weighted", "exponent": self.exponent}


def _shuffled_passes(members: Sequence[int], generator: np.random.Generator) -> Iterator[int]:
    while True:
        for position in generator.permutation(len(members)):
            yield members[position]


def _check(concepts: Sequence[Concept]) -> None:
    if not concepts:
        raise ValueError("There is no concept to draw from; expected at least one.")
