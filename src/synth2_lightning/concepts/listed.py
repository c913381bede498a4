"""Base class of concept lists that are read into memory."""

import hashlib
import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable
from typing import Any

from synth2_lightning.interfaces import ConceptSource
from synth2_lightning.io.messages import name_first
from synth2_lightning.types import Concept

_logger = logging.getLogger(__name__)
_NUM_EXAMPLES = 5


class ListedConcepts(ConceptSource):
    """Concepts in memory, with a count of excluded ones.

    Args:
        name: Name of the concepts in records and reports.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._concepts: tuple[Concept, ...] = ()
        self._num_excluded: dict[str, int] = {}

    @abstractmethod
    def read_concepts(self, excluded: Counter[str]) -> Iterable[Concept]:
        """Yield the concepts in order, and count the excluded ones by reason in ``excluded``."""

    def _load(self) -> None:
        """Read the list; an empty list and a repeated key are errors."""
        excluded: Counter[str] = Counter()
        concepts = tuple(self.read_concepts(excluded))
        self._check(concepts, excluded)
        self._concepts = concepts
        self._num_excluded = dict(excluded.most_common())
        if excluded:
            reasons = ", ".join(f"{count} {reason}" for reason, count in excluded.most_common(_NUM_EXAMPLES))
            others = ", and others" if len(excluded) > _NUM_EXAMPLES else ""
            _logger.info(
                "Concepts %r: kept %d, excluded %d (%s%s).",
                *(self.name, len(concepts), excluded.total(), reasons, others),
            )

    def __len__(self) -> int:
        return len(self._loaded())

    def concept(self, index: int) -> Concept:
        """Return the concept at an index."""
        return self._loaded()[index]

    def provenance(self) -> dict[str, Any]:
        """Return the name, the numbers of concepts and excluded ones, and a fingerprint."""
        digest = hashlib.sha256("\n".join(map(repr, self._loaded())).encode()).hexdigest()
        return {
            "name": self.name,
            "num_concepts": len(self),
            "num_excluded": dict(self._num_excluded),
            "fingerprint": digest[:12],
        }

    def _loaded(self) -> tuple[Concept, ...]:
        if not self._concepts:
            raise RuntimeError(f"Concepts {self.name!r} are not loaded; call load() first.")
        return self._concepts

    def _check(self, concepts: tuple[Concept, ...], excluded: Counter[str]) -> None:
        if not concepts:
            raise ValueError(
                f"Concepts {self.name!r} contain no concept ({excluded.total()} were excluded); expected at least one. "
                "Check the arguments for its files and exclusions."
            )
        counts = Counter(concept.key for concept in concepts)
        if repeated := [key for key, count in counts.items() if count > 1]:
            raise ValueError(
                f"Concepts {self.name!r} have {len(repeated)} keys more than once: {name_first(repeated)}. Expected "
                "unique keys, by which a resumed run identifies finished records. Remove the duplicates."
            )
