"""The classes of ImageNet, whose names and definitions timm brings along."""

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
"""Lists of classes, by timm's names."""


class ImageNetConcepts(ListedConcepts):
    """Classes of ImageNet: the name is the first lemma, the branch WordNet's lexicographer file.

    What cannot be photographed, and what harms, is left out by a list. The one that ships takes no roles of people but
    those that it names: most of ImageNet's were found offensive or impossible to see (Yang et al. 2020, "Towards Fairer
    Datasets", arXiv 1912.07726).

    Args:
        subset: Which classes.
        unsuitable: Which of them are left out, by a file such as :class:`SuitabilityList` reads; ``None`` keeps all.
        name: What records and reports call the concepts; the subset where left out.

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
        """Go through the classes that may stay, in timm's order.

        Raises:
            FileNotFoundError: If the list of unsuitable concepts does not exist.
            ValueError: If a line of it is no rule.
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
            definition = gloss.partition('; "')[0]  # sentences that use the word come after
            yield Concept(synset, lemmas.partition(", ")[0], definition, branch)
