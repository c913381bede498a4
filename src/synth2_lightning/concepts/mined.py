"""Concepts mined from the nouns of a caption set."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

from synth2_lightning.concepts.listed import ListedConcepts
from synth2_lightning.concepts.suitability import UNSUITABLE, SuitabilityList
from synth2_lightning.concepts.wordnet import WordNet, read_wordnet
from synth2_lightning.interfaces import CaptionSource
from synth2_lightning.types import Concept

_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")  # of any alphabet, so that no part of a foreign word is a noun


class MinedConcepts(ListedConcepts):
    """Nouns of captions, most frequent first, weighted by the number of captions that contain them.

    A noun is one word or two in WordNet, longer matches first ("tennis ball" is not counted as a ball); a single word
    must be a noun at least as often as another part of speech. Words of one synset form one concept, with its most
    frequent name in the captions and no definition, because WordNet's may not match the captions.

    Args:
        captions: Source of the captions; not those of an evaluation split.
        min_count: Minimum number of captions that contain a noun.
        unsuitable: File of excluded nouns in the format of :class:`SuitabilityList`; ``None`` keeps all.
        name: Name of the concepts in records and reports.

    Raises:
        ValueError: If ``min_count`` is below 1.
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
        """Yield the nouns of all captions, most frequent first.

        Raises:
            FileNotFoundError: If the list of unsuitable concepts does not exist.
            ValueError: If a line of the list is not a rule, or the captions are an evaluation split.
        """
        wordnet = read_wordnet()
        rules = SuitabilityList(self.unsuitable) if self.unsuitable else None
        for synset, name, count in self._count(lambda caption: find_concepts(caption, wordnet)):
            branch = wordnet.branch(synset)
            if rules and not rules.allows(synset, wordnet):
                excluded[branch] += 1
            elif count < self.min_count:
                excluded[f"in fewer than {self.min_count} captions"] += 1
            else:
                yield Concept(synset, name, branch=branch, weight=float(count))

    def _count(self, find: Callable[[str], Iterable[Concept]]) -> Iterator[tuple[str, str, int]]:
        """Yield key, most frequent name, and number of captions of all that is found, most frequent first."""
        self.captions.load_for_training()
        counts: Counter[str] = Counter()
        names: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for index in range(len(self.captions)):
            for concept in find(self.captions.record(index).caption):
                counts[concept.key] += 1
                names[concept.key][concept.name] += 1
        for key, count in counts.most_common():
            yield key, names[key].most_common(1)[0][0], count


def find_concepts(caption: str, wordnet: WordNet, rules: SuitabilityList | None = None) -> list[Concept]:
    """Return the concepts of an English caption's nouns, each once, in order, with their names in the caption.

    Args:
        caption: The text.
        wordnet: Nouns and their synsets.
        rules: Unsuitable concepts, which are left out.

    Example:
        >>> [concept.name for concept in find_concepts("Two dogs and a cat chase a dog .", read_wordnet())]
        ['dog', 'cat']
    """
    # A dict keeps the order, so that ties between names are resolved alike in every process.
    found = {wordnet.find(noun): noun for noun in find_nouns(caption, wordnet)}
    return [
        Concept(synset, noun, branch=wordnet.branch(synset))
        for synset, noun in found.items()
        if synset is not None and (rules is None or rules.allows(synset, wordnet))
    ]


def find_nouns(caption: str, wordnet: WordNet) -> list[str]:
    """Return the lemmas of an English text's nouns that are in WordNet, in order.

    Example:
        >>> find_nouns("Two dogs jump for a tennis ball .", read_wordnet())
        ['dog', 'tennis ball']
    """
    words = [word for word in _split_words(caption) if word != "does"]  # the verb, not the plural of doe
    found = []
    index = 0
    while index < len(words):
        term = _find_term(words[index : index + 2], wordnet)
        word = term or wordnet.lemma(words[index].removesuffix("'s"))
        if word is not None and len(word) > 1 and wordnet.is_mostly_noun(word):  # "p" is phosphorus
            found.append(word)
        index += 2 if term else 1
    return found


def _split_words(text: str) -> list[str]:
    """Return the words in lower case, without accents, which WordNet does not have."""
    decomposed = unicodedata.normalize("NFKD", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    return _WORD.findall("".join(character for character in decomposed if not unicodedata.combining(character)))


def _find_term(words: list[str], wordnet: WordNet) -> str | None:
    """Return the lemma of a two-word term whose second word is a noun, which excludes the moth in "large white dog"."""
    if len(words) < 2 or words[0] in ("a", "an", "the"):
        return None
    last = wordnet.lemma(words[1])
    return wordnet.lemma(" ".join(words)) if last and wordnet.is_mostly_noun(last) else None
