"""What WordNet 3.0 knows of the things that captions name: what each is a kind of, and which part of the world it is.

``wordnet.tsv.gz`` holds the synsets of ImageNet-21k, all artifacts, everyday nouns for what else can be seen, and all
that these are kinds of; ``examples/derive_wordnet_table.py`` made it. WordNet's licence lies beside it.
"""

import gzip
from collections.abc import Iterator
from functools import cache

from synth2_lightning.locations import resolve

_TABLE = "package://synth2_lightning/concepts/wordnet.tsv.gz"
_IRREGULAR = {"children": "child", "feet": "foot", "geese": "goose", "mice": "mouse", "oxen": "ox", "teeth": "tooth"}
_MOSTLY_OTHER = "*"


class WordNet:
    """Nouns, as a tree: of several things that a synset is a kind of, the first counts.

    Args:
        parents: What each synset is a kind of; empty for the root.
        branches: Lexicographer file of each synset, such as ``"animal"``.
        leads: The synset that each lemma means most often; lemmas are lower case with spaces, and name no individual.
        mostly_other: Lemmas that are verbs, adjectives or adverbs more often than nouns.

    Example:
        >>> dog = "n02084071"
        >>> wordnet = read_wordnet()
        >>> wordnet.branch(dog), wordnet.ancestors(dog)[0], wordnet.find("Dogs") == dog
        ('animal', 'n02083346', True)
    """

    def __init__(
        self, parents: dict[str, str], branches: dict[str, str], leads: dict[str, str], mostly_other: set[str]
    ) -> None:
        self._parents = parents
        self._branches = branches
        self._leads = leads
        self._mostly_other = mostly_other

    def __len__(self) -> int:
        """Number of synsets."""
        return len(self._parents)

    def __contains__(self, synset: object) -> bool:
        """Whether the table has a synset."""
        return synset in self._parents

    def branch(self, synset: str) -> str:
        """Lexicographer file of a synset.

        Raises:
            KeyError: If the table lacks the synset.
        """
        return self._branches[synset]

    def ancestors(self, synset: str) -> list[str]:
        """What a synset is a kind of, nearest first, up to the root.

        Raises:
            KeyError: If the table lacks the synset.
        """
        found = []
        while synset := self._parents[synset]:
            found.append(synset)
        return found

    def lemma(self, name: str) -> str | None:
        """The dictionary's form of a name: lower case and singular; ``None`` where the table lacks it.

        Example:
            >>> [read_wordnet().lemma(name) for name in ("Berries", "swimming_pools", "women", "glasses", "xyzzy")]
            ['berry', 'swimming pool', 'woman', 'glasses', None]
        """
        plain = " ".join(name.lower().replace("_", " ").split())
        return next((form for form in _forms(plain) if form in self._leads), None)

    def find(self, name: str) -> str | None:
        """The synset that a name means most often; ``None`` where the table lacks it, as it does what is abstract.

        Example:
            >>> read_wordnet().find("the of") is None
            True
        """
        lemma = self.lemma(name)
        return None if lemma is None else self._leads[lemma]

    def is_mostly_noun(self, lemma: str) -> bool:
        """Whether a lemma is a noun at least as often as a verb, an adjective or an adverb, in tagged English texts.

        Example:
            >>> read_wordnet().is_mostly_noun("dog"), read_wordnet().is_mostly_noun("fly")
            (True, False)
        """
        return lemma not in self._mostly_other


@cache
def read_wordnet() -> WordNet:
    """Read the table that ships with the package, once per process.

    Example:
        >>> read_wordnet().branch("n00021939")
        'Tops'
    """
    parents: dict[str, str] = {}
    branches: dict[str, str] = {}
    leads: dict[str, str] = {}
    mostly_other: set[str] = set()
    with gzip.open(resolve(_TABLE, "table of WordNet"), "rt", encoding="utf-8") as file:
        for line in file:
            synset, parent, branch, lemmas = line.rstrip("\n").split("\t")
            parents[synset], branches[synset] = parent, branch
            for lemma in lemmas.split("|") if lemmas else ():
                plain = lemma.removesuffix(_MOSTLY_OTHER)
                leads[plain] = synset
                if plain != lemma:
                    mostly_other.add(plain)
    return WordNet(parents, branches, leads, mostly_other)


def _forms(name: str) -> Iterator[str]:
    """Give a name's irregular singular, then the name as it is, then what it may be the regular plural of."""
    first, space, last = name.rpartition(" ")
    if last in _IRREGULAR:
        yield first + space + _IRREGULAR[last]
    if last.endswith("men"):
        yield name.removesuffix("men") + "man"
    yield name
    if not name.endswith("s") or name.endswith("ss"):
        return
    yield name[:-1]
    if name.endswith("ies"):
        yield name[:-3] + "y"
    elif name.endswith("ves"):
        yield name[:-3] + "f"
        yield name[:-3] + "fe"
    elif name.endswith("es"):
        yield name[:-2]
