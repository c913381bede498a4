"""Which concepts captions may be asked for: what can be photographed, and harms nobody."""

from synth2_lightning.concepts.wordnet import WordNet
from synth2_lightning.locations import resolve
from synth2_lightning.tables import read_lines

UNSUITABLE = "package://synth2_lightning/concepts/unsuitable.txt"
"""The list that ships with the package; its head says how such a list is written."""


class SuitabilityList:
    """Rules of a text file, one a line, the narrowest of which decides.

    ``keep SYNSET`` lets one synset stay, ``only SYNSET`` leaves one out, ``below SYNSET`` leaves out one with all its
    kinds, ``branch BRANCH`` leaves out a lexicographer file. Words after these are for people, and so is what follows
    ``#``.

    Args:
        location: The file, as :func:`synth2_lightning.locations.resolve` takes it.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a line is no such rule.

    Example:
        >>> from synth2_lightning.concepts.wordnet import read_wordnet
        >>> rules = SuitabilityList(UNSUITABLE)  # a dog, an ambassador, a firefighter
        >>> [rules.allows(synset, read_wordnet()) for synset in ("n02084071", "n09787534", "n10091651")]
        [True, False, True]
    """

    def __init__(self, location: str) -> None:
        self._rules: dict[str, set[str]] = {"keep": set(), "only": set(), "below": set(), "branch": set()}
        path = resolve(location, "list of unsuitable concepts")
        for number, line in enumerate(read_lines(path), start=1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if words[0] not in self._rules or len(words) == 1:
                raise ValueError(
                    f"{path}, line {number}, is {line!r}; expected keep, only or below with a synset such as "
                    "n02084071, or branch with a lexicographer file such as person."
                )
            self._rules[words[0]].add(words[1])

    def allows(self, synset: str, wordnet: WordNet) -> bool:
        """Whether captions may be asked for a synset.

        Raises:
            KeyError: If the table lacks the synset.
        """
        if synset in self._rules["keep"]:
            return True
        if synset in self._rules["only"] or not self._rules["below"].isdisjoint((synset, *wordnet.ancestors(synset))):
            return False
        return wordnet.branch(synset) not in self._rules["branch"]
