"""What all lists of concepts share: they are read as a whole, once, and say what they hold and what they left out."""

import hashlib
import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable
from typing import Any

from synth2_lightning.interfaces import ConceptSource
from synth2_lightning.types import Concept

_logger = logging.getLogger(__name__)
_NUM_NAMED = 5


class ListedConcepts(ConceptSource):
    """Concepts that fit into memory, as ImageNet's do.

    Args:
        name: What records and reports call them.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._concepts: tuple[Concept, ...] = ()
        self._num_excluded: dict[str, int] = {}

    @abstractmethod
    def read_concepts(self, excluded: Counter[str]) -> Iterable[Concept]:
        """Go through the concepts in their order.

        Args:
            excluded: Where to count what is left out, by what it is.
        """

    def load(self) -> None:
        """Read the list; the second call does nothing.

        Raises:
            ValueError: If it holds nothing, or a key comes twice.
        """
        if self._concepts:
            return
        excluded: Counter[str] = Counter()
        concepts = tuple(self.read_concepts(excluded))
        self._check(concepts, excluded)
        self._concepts = concepts
        self._num_excluded = dict(excluded.most_common())
        if excluded:
            reasons = ", ".join(f"{count} {reason}" for reason, count in excluded.most_common(_NUM_NAMED))
            others = ", and others" if len(excluded) > _NUM_NAMED else ""
            _logger.info(
                "Concepts %r keep %d and leave out %d (%s%s).",
                *(self.name, len(concepts), excluded.total(), reasons, others),
            )

    def __len__(self) -> int:
        """Number of concepts."""
        return len(self._loaded())

    def concept(self, index: int) -> Concept:
        """Give a concept."""
        return self._loaded()[index]

    def provenance(self) -> dict[str, Any]:
        """Give name, numbers and a fingerprint of every concept."""
        digest = hashlib.sha256("\n".join(map(repr, self._loaded())).encode()).hexdigest()
        return {
            "name": self.name,
            "num_concepts": len(self),
            "num_excluded": dict(self._num_excluded),
            "fingerprint": digest[:12],
        }

    def _loaded(self) -> tuple[Concept, ...]:
        if not self._concepts:
            raise RuntimeError(f"Concepts {self.name!r} were asked for before load(); call load() first.")
        return self._concepts

    def _check(self, concepts: tuple[Concept, ...], excluded: Counter[str]) -> None:
        if not concepts:
            raise ValueError(
                f"Concepts {self.name!r} hold not one concept ({excluded.total()} were left out); expected at least "
                "one. Look at the arguments that name its files and say what is left out."
            )
        counts = Counter(concept.key for concept in concepts)
        if repeated := [key for key, count in counts.items() if count > 1]:
            named = ", ".join(repeated[:_NUM_NAMED]) + (", and others" if len(repeated) > _NUM_NAMED else "")
            raise ValueError(
                f"Concepts {self.name!r} have {len(repeated)} keys more than once: {named}. Expected every key once, "
                "because a run that goes on knows by it what is made already. Take the copies out."
            )
