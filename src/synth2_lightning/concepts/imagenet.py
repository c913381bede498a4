"""Concepts from the classes of ImageNet, with timm's names and definitions."""

from collections import Counter
from collections.abc import Iterator
from typing import Literal

from synth2_lightning.concepts.listed import ListedConcepts
from synth2_lightning.concepts.suitability import UNSUITABLE, SuitabilityList
from synth2_lightning.concepts.wordnet import read_wordnet
from synth2_lightning.types import Concept

ImageNetSubset = Literal[
    "imagenet-1k", "imagenet-12k", "imagenet-21k-goog", "imagenet-21k-miil", "imagenet-22k", "imagenet-22k-ms"
]
"""timm's names of the class lists."""


class ImageNetConcepts(ListedConcepts):
    """ImageNet classes; the name is the first lemma, the branch WordNet's lexicographer file.

    A list excludes concepts that cannot be photographed or may cause harm. The default list excludes most roles of
    people, many of which are offensive or not visible (Yang et al. 2020, "Towards Fairer Datasets", arXiv 1912.07726).

    Args:
        subset: Class list.
        unsuitable: File of excluded classes in the format of :class:`SuitabilityList`; ``None`` keeps all.
        name: Name of the concepts in records and reports; the subset by default.

    Example:
        >>> concepts = ImageNetConcepts("imagenet-1k")
        >>> concepts.load()
        >>> concepts.concept(0).key, concepts.concept(0).name, concepts.concept(0).branch
        ('n01440764', 'tench', 'animal')
    """

    def __init__(
        self,
        subset: ImageNetSubset = "imagenet-21k-goog",
        unsuitable: str | None = UNSUITABLE,
        name: str | None = None,
    ) -> None:
        super().__init__(name or subset)
        self.subset = subset
        self.unsuitable = unsuitable

    def read_concepts(self, excluded: Counter[str]) -> Iterator[Concept]:
        """Yield the kept classes in timm's order.

        Raises:
            FileNotFoundError: If the list of unsuitable concepts does not exist.
            ValueError: If a line of the list is not a rule.
        """
        from timm.data import ImageNetInfo

        info = ImageNetInfo(self.subset)
        wordnet = read_wordnet()
        rules = SuitabilityList(self.unsuitable) if self.unsuitable else None
        for synset in info.label_names():
            branch = wordnet.branch(synset)
            if rules and not rules.allows(synset, wordnet):
                excluded[branch] += 1
                continue
            lemmas, _, gloss = info.label_name_to_description(synset, detailed=True).partition(": ")
            definition = gloss.partition('; "')[0]  # example sentences follow
            yield Concept(synset, lemmas.partition(", ")[0], definition, branch)
