"""Words and n-grams of captions, without case, accents and punctuation."""

import re
import unicodedata
from collections.abc import Set

_STRAIGHT = str.maketrans(
    {
        "\N{LEFT SINGLE QUOTATION MARK}": "'",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{DOUBLE LOW-9 QUOTATION MARK}": '"',
    }
)
_WORD = re.compile(r"[^'\s]+(?:'[^'\s]+)*")
_SEPARATORS = re.compile(r"[^\w']|_")


def straighten_quotes(text: str) -> str:
    """Replace typographic quotation marks and apostrophes by ASCII ones.

    Example:
        >>> straighten_quotes("“open”")
        '"open"'
    """
    return text.translate(_STRAIGHT)


def split_words(text: str) -> list[str]:
    """Split a text into words without case, accents and punctuation, except apostrophes inside words.

    Example:
        >>> split_words("A dog's Café-bar, “open”.")
        ['a', "dog's", 'cafe', 'bar', 'open']
    """
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", straighten_quotes(text))
        text = "".join(character for character in decomposed if not _is_accent(character))
    separated = _SEPARATORS.sub(lambda found: found[0] if _is_mark(found[0]) else " ", text.casefold())
    return _WORD.findall(separated)


def join_ngrams(words: list[str], size: int) -> list[tuple[str, ...]]:
    """Return all n-grams of ``size`` words, in order; a shorter text is one n-gram.

    Example:
        >>> join_ngrams(["a", "red", "dog"], 2)
        [('a', 'red'), ('red', 'dog')]
        >>> join_ngrams(["dog"], 2)
        [('dog',)]
    """
    return [tuple(words[start : start + size]) for start in range(max(len(words) - size, 0) + 1)]


def measure_jaccard(one: Set[object], other: Set[object]) -> float:
    """Return the Jaccard similarity of two sets, at least one of which is not empty.

    Example:
        >>> measure_jaccard({("a", "dog"), ("dog", "runs")}, {("a", "dog")})
        0.5
    """
    num_common = len(one & other)
    return num_common / (len(one) + len(other) - num_common)


def _is_accent(character: str) -> bool:
    """Whether a character is an accent or an optional vowel point, and no mark that makes another letter or word.

    The latter are virama and voicing marks (combining classes 7 to 9: "が" is not "か"), and the vowel signs and tones
    of Thai, Lao and Tibetan (103 to 132).
    """
    kind = unicodedata.combining(character)
    return kind > 9 and not 103 <= kind <= 132


def _is_mark(character: str) -> bool:
    """Whether a character belongs to the letter before it, as the vowel signs of Hindi and Thai do."""
    return unicodedata.category(character).startswith("M")
