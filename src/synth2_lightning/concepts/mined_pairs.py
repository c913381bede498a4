"""Pairs of concepts that captions name together."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations

from synth2_lightning.concepts.mined import MinedConcepts, find_concepts
from synth2_lightning.concepts.suitability import SuitabilityList
from synth2_lightning.concepts.wordnet import read_wordnet
from synth2_lightning.types import CLASS_NAME_SEPARATOR, Concept


class MinedPairs(MinedConcepts):
    """Pairs of nouns that occur in one caption, most frequent first, weighted by the number of such captions.

    Two nouns of :class:`~synth2_lightning.concepts.mined.MinedConcepts` sampled independently, such as a surfboard and
    a piano, rarely occur in one image; these pairs do. A pair is one concept, with both names: use it with a template
    with ``{names}``, and one concept per caption. The arguments are those of ``MinedConcepts``; ``min_count`` is the
    minimum number of captions that contain a pair.
    """

    def read_concepts(self, excluded: Counter[str]) -> Iterator[Concept]:
        """Yield the pairs of all captions, most frequent first."""
        wordnet = read_wordnet()
        rules = SuitabilityList(self.unsuitable) if self.unsuitable else None
        for key, names, count in self._count(lambda caption: _pair(find_concepts(caption, wordnet, rules))):
            if count < self.min_count:
                excluded[f"in fewer than {self.min_count} captions"] += 1
            else:
                yield Concept(key, names, weight=float(count))


def _pair(concepts: Sequence[Concept]) -> Iterator[Concept]:
    """Yield all pairs as concepts, with equal keys in both orders."""
    for pair in combinations(concepts, 2):
        key = "+".join(sorted(concept.key for concept in pair))
        yield Concept(key, CLASS_NAME_SEPARATOR.join(concept.name for concept in pair))
