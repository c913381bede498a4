"""Exclusion rules for concepts that cannot be photographed or may cause harm."""

from synth2_lightning.concepts.wordnet import WordNet, read_wordnet
from synth2_lightning.io.locations import resolve
from synth2_lightning.io.tables import read_lines

UNSUITABLE = "package://synth2_lightning/concepts/unsuitable.txt"
"""List of the package; its header documents the format."""
_BRANCHES = (
    *("Tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event", "feeling"),
    *("food", "group", "location", "motive", "object", "person", "phenomenon", "plant", "possession", "process"),
    *("quantity", "relation", "shape", "state", "substance", "time"),
)
"""Lexicographer files of nouns in WordNet 3.0."""


class SuitabilityList:
    """Exclusion rules of a text file, one per line; the most specific rule applies.

    ``keep SYNSET`` keeps one synset, ``only SYNSET`` excludes one, ``below SYNSET`` excludes one with all its hyponyms,
    ``branch BRANCH`` excludes a lexicographer file. Further words and text after ``#`` are comments.

    Args:
        location: Location of the file, see :func:`synth2_lightning.io.locations.resolve`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a line is not a rule, or names no synset or branch of WordNet.

    Example:
        >>> from synth2_lightning.concepts.wordnet import read_wordnet
        >>> rules = SuitabilityList(UNSUITABLE)  # a dog, an ambassador, a firefighter
        >>> [rules.allows(synset, read_wordnet()) for synset in ("n02084071", "n09787534", "n10091651")]
        [True, False, True]
    """

    def __init__(self, location: str) -> None:
        self._rules: dict[str, set[str]] = {"keep": set(), "only": set(), "below": set(), "branch": set()}
        path = resolve(location, "list of unsuitable concepts")
        wordnet = read_wordnet()
        for number, line in enumerate(read_lines(path), start=1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if words[0] not in self._rules or len(words) == 1:
                raise ValueError(
                    f"{path}, line {number}, is {line!r}; expected keep, only or below with a synset such as "
                    "n02084071, or branch with a lexicographer file such as person."
                )
            if words[0] == "branch" and words[1] not in _BRANCHES:
                raise ValueError(f"{path}, line {number}, is {line!r}; expected one of {', '.join(_BRANCHES)}.")
            if words[0] != "branch" and words[1] not in wordnet:
                raise ValueError(
                    f"{path}, line {number}, is {line!r}, and WordNet's table has no {words[1]!r}; expected a synset "
                    "such as n02084071."
                )
            self._rules[words[0]].add(words[1])

    def allows(self, synset: str, wordnet: WordNet) -> bool:
        """Return whether the rules keep a synset of the table."""
        if synset in self._rules["keep"]:
            return True
        if synset in self._rules["only"] or not self._rules["below"].isdisjoint((synset, *wordnet.ancestors(synset))):
            return False
        return wordnet.branch(synset) not in self._rules["branch"]
