"""Hypernyms and lexicographer files of visible nouns in WordNet 3.0.

``wordnet.tsv.gz`` contains the synsets of ImageNet-21k, all artifacts, other common visible nouns, and all their
hypernyms. ``examples/derive_wordnet_table.py`` created it. WordNet's license is in the same folder.
"""

import gzip
from collections.abc import Iterator
from functools import cache

from synth2_lightning.io.locations import resolve

_TABLE = "package://synth2_lightning/concepts/wordnet.tsv.gz"
_IRREGULAR = {"children": "child", "feet": "foot", "geese": "goose", "mice": "mouse", "oxen": "ox", "teeth": "tooth"}
_MOSTLY_OTHER = "*"


class WordNet:
    """Tree of noun synsets; of several hypernyms of a synset, only the first is used.

    Args:
        parents: Hypernym of each synset; empty for the root.
        branches: Lexicographer file of each synset, such as ``"animal"``.
        leads: Most frequent synset of each lemma; lemmas are lowercase common nouns with spaces.
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
        return len(self._parents)

    def __contains__(self, synset: object) -> bool:
        return synset in self._parents

    def branch(self, synset: str) -> str:
        """Return the lexicographer file of a synset; a ``KeyError`` if it is not in the table."""
        return self._branches[synset]

    def ancestors(self, synset: str) -> list[str]:
        """Return the hypernyms of a synset, nearest first, up to the root."""
        found = []
        while synset := self._parents[synset]:
            found.append(synset)
        return found

    def lemma(self, name: str) -> str | None:
        """Return the lemma of a name, lowercase and singular; ``None`` if it is not in the table.

        Example:
            >>> [read_wordnet().lemma(name) for name in ("Berries", "swimming_pools", "women", "glasses", "xyzzy")]
            ['berry', 'swimming pool', 'woman', 'glasses', None]
        """
        plain = " ".join(name.lower().replace("_", " ").split())
        return next((form for form in _forms(plain) if form in self._leads), None)

    def find(self, name: str) -> str | None:
        """Return the most frequent synset of a name; ``None`` if it is not in the table, such as abstract nouns."""
        lemma = self.lemma(name)
        return None if lemma is None else self._leads[lemma]

    def is_mostly_noun(self, lemma: str) -> bool:
        """Return whether a lemma is a noun at least as often as another part of speech, in tagged English texts.

        Example:
            >>> read_wordnet().is_mostly_noun("dog"), read_wordnet().is_mostly_noun("fly")
            (True, False)
        """
        return lemma not in self._mostly_other


@cache
def read_wordnet() -> WordNet:
    """Return the table of the package, read once per process."""
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
    """Yield a name's irregular singular, then the name itself, then its possible regular singulars."""
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
