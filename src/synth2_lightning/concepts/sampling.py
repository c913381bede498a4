"""Sampling of concepts: uniform, balanced over branches, or by weight."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np

from synth2_lightning.interfaces import ConceptSampler
from synth2_lightning.types import Concept


class UniformSampling(ConceptSampler):
    """Shuffled passes over all concepts.

    Example:
        >>> concepts = [Concept(name, name) for name in ("dog", "cat", "bus")]
        >>> sorted(UniformSampling().sample(concepts, 3, seed=0))
        [0, 1, 2]
    """

    def sample(self, concepts: Sequence[Concept], count: int, seed: int) -> list[int]:
        """Return ``count`` indices of concepts.

        Raises:
            ValueError: If there are no concepts.
        """
        _check(concepts)
        return list(islice(_shuffled_passes(range(len(concepts)), np.random.default_rng(seed)), count))

    def provenance(self) -> dict[str, Any]:
        """Return the name of the sampler."""
        return {"sampler": "uniform"}


@dataclass(frozen=True)
class BalancedSampling(ConceptSampler):
    """Shuffled passes over the branches, with shuffled passes over the concepts of each branch.

    Every branch is equally frequent, although ImageNet-21k has far more plants than places.

    Args:
        min_concepts: Branches with fewer concepts are merged into one, so that the concept of a small branch is not
            repeated as often as all concepts of a large one.

    Raises:
        ValueError: If ``min_concepts`` is below 1.

    Example:
        >>> concepts = [Concept(name, name, branch="animal") for name in ("dog", "cat", "fox")]
        >>> concepts.append(Concept("bus", "bus", branch="artifact"))
        >>> BalancedSampling().sample(concepts, 6, seed=0).count(3)
        3
    """

    min_concepts: int = 1

    def __post_init__(self) -> None:
        if self.min_concepts < 1:
            raise ValueError(f"BalancedSampling got min_concepts={self.min_concepts}; expected 1 or more.")

    def sample(self, concepts: Sequence[Concept], count: int, seed: int) -> list[int]:
        """Return ``count`` indices of concepts.

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
        # One generator per branch, so that its order does not depend on other branches.
        passes = [
            _shuffled_passes(members, own) for members, own in zip(groups, generator.spawn(len(groups)), strict=True)
        ]
        return [next(passes[branch]) for branch in islice(_shuffled_passes(range(len(groups)), generator), count)]

    def provenance(self) -> dict[str, Any]:
        """Return the sampler's name and argument."""
        return {"sampler": "balanced", **asdict(self)}


@dataclass(frozen=True)
class WeightedSampling(ConceptSampler):
    """Sampling with replacement, with probabilities proportional to a power of the weights.

    Args:
        exponent: Exponent of the weights: 1 keeps their proportions, 0.5 flattens them, 0 is uniform.

    Raises:
        ValueError: If ``exponent`` is negative or not finite.

    Example:
        >>> concepts = [Concept("dog", "dog", weight=999.0), Concept("axolotl", "axolotl", weight=1.0)]
        >>> WeightedSampling().sample(concepts, 5, seed=0)
        [0, 0, 0, 0, 0]
    """

    exponent: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.exponent < math.inf:
            raise ValueError(
                f"WeightedSampling got exponent={self.exponent}; expected 0 or more, so that frequent concepts are not "
                "sampled less often."
            )

    def sample(self, concepts: Sequence[Concept], count: int, seed: int) -> list[int]:
        """Return ``count`` indices of concepts.

        Raises:
            ValueError: If there are no concepts, or a weight is not a number above 0.
        """
        _check(concepts)
        weights = np.array([concept.weight for concept in concepts])
        if not (np.isfinite(weights) & (weights > 0)).all():
            bad = concepts[int(np.argmin(np.isfinite(weights) & (weights > 0)))]
            raise ValueError(f"The concept {bad.name!r} has weight {bad.weight}; expected a number above 0.")
        edges = np.cumsum((weights / weights.max()) ** self.exponent)
        # One number per caption, so that a longer sample starts with the shorter one.
        positions = np.random.default_rng(seed).random(count) * edges[-1]
        indices = np.minimum(np.searchsorted(edges, positions, side="right"), len(concepts) - 1)
        return [int(index) for index in indices]

    def provenance(self) -> dict[str, Any]:
        """Return the sampler's name and argument."""
        return {"sampler": "weighted", **asdict(self)}


def _shuffled_passes(members: Sequence[int], generator: np.random.Generator) -> Iterator[int]:
    while True:
        for position in generator.permutation(len(members)):
            yield members[position]


def _check(concepts: Sequence[Concept]) -> None:
    if not concepts:
        raise ValueError("There is no concept to sample from; expected at least one.")
