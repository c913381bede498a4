"""Names of things that people mention in a real caption set."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from synth2_lightning.concepts.listed import ListedConcepts
from synth2_lightning.concepts.suitability import UNSUITABLE, SuitabilityList
from synth2_lightning.concepts.wordnet import WordNet, read_wordnet
from synth2_lightning.interfaces import CaptionSource
from synth2_lightning.types import Concept

_WORD = re.compile(r"[a-z]+(?:['-][a-z]+)*")


class MinedConcepts(ListedConcepts):
    """Nouns of captions, the most frequent first, weighted by the number of captions that hold them.

    A noun is one word or two that WordNet knows as a thing, longer ones first ("tennis ball" is no ball); a single word
    must be a noun more often than a verb or an adjective. Words of one meaning are one concept, named as the captions
    name it most often: no definition comes along, since WordNet's need not be that of the captions.

    Args:
        captions: Where the nouns are looked for.
        min_count: How many captions must hold a noun.
        unsuitable: Which nouns are left out, by a file such as :class:`SuitabilityList` reads; ``None`` keeps all.
        name: What records and reports call the concepts.

    Raises:
        ValueError: If ``min_count`` is below one.

    Example:
        >>> from synth2_lightning.sources.caption_table import CaptionTable
        >>> MinedConcepts(CaptionTable("captions.csv"), min_count=5).name
        'mined'
    """

    def __init__(
        self,
        captions: CaptionSource,
        min_count: int = 3,
        unsuitable: str | None = UNSUITABLE,
        name: str = "mined",
    ) -> None:
        super().__init__(name)
        if min_count < 1:
            raise ValueError(f"Concepts {name!r} got min_count={min_count}; expected 1 or more captions.")
        self.captions = captions
        self.min_count = min_count
        self.unsuitable = unsuitable

    def read_concepts(self, excluded: Counter[str]) -> Iterator[Concept]:
        """Count the nouns of all captions.

        Raises:
            FileNotFoundError: If the list of unsuitable concepts does not exist.
            ValueError: If a line of it is no rule.
        """
        wordnet = read_wordnet()
        rules = SuitabilityList(self.unsuitable) if self.unsuitable else None
        self.captions.load()
        counts: Counter[str] = Counter()
        names: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for index in range(len(self.captions)):
            # In their order, not as sets: of names that are equally frequent the first is taken, in every process.
            found = {wordnet.find(noun): noun for noun in find_nouns(self.captions.record(index).caption, wordnet)}
            for synset, noun in found.items():
                if synset is not None:
                    counts[synset] += 1
                    names[synset][noun] += 1
        for synset, count in counts.most_common():
            branch = wordnet.branch(synset)
            if rules and not rules.allows(synset, wordnet):
                excluded[branch] += 1
            elif count < self.min_count:
                excluded[f"in fewer than {self.min_count} captions"] += 1
            else:
                yield Concept(synset, names[synset].most_common(1)[0][0], branch=branch, weight=float(count))


def find_nouns(caption: str, wordnet: WordNet) -> list[str]:
    """Find the nouns of a text that the table knows, as the dictionary writes them, in their order.

    Args:
        caption: English text.
        wordnet: Which nouns there are.

    Example:
        >>> find_nouns("Two dogs jump for a tennis ball .", read_wordnet())
        ['dog', 'tennis ball']
    """
    words = [word for word in _WORD.findall(caption.lower()) if word != "does"]  # no deer
    found = []
    at = 0
    while at < len(words):
        term = _find_term(words[at : at + 2], wordnet)
        word = term or wordnet.lemma(words[at])
        if word is not None and wordnet.is_mostly_noun(word):
            found.append(word)
        at += 2 if term else 1
    return found


def _find_term(words: list[str], wordnet: WordNet) -> str | None:
    """Find a term of two words, the second of which is itself a noun: "a large white dog" is no large white, a moth."""
    if len(words) < 2 or words[0] in ("a", "an", "the"):
        return None
    last = wordnet.lemma(words[1])
    return wordnet.lemma(" ".join(words)) if last and wordnet.is_mostly_noun(last) else None
