"""Captions as words, so that case, accents and punctuation count for nothing."""

import re
import unicodedata
from collections.abc import Set

_STRAIGHT = str.maketrans(
    {
        "\N{LEFT SINGLE QUOTATION MARK}": "'",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    }
)
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def straighten_quotes(text: str) -> str:
    """Write typographic quotation marks and apostrophes as a typewriter does.

    Example:
        >>> straighten_quotes("“open”")
        '"open"'
    """
    return text.translate(_STRAIGHT)


def split_words(text: str) -> list[str]:
    """Split a text into words without case, accents and punctuation; an apostrophe inside a word stays.

    Example:
        >>> split_words("A dog's Café-bar, “open”.")
        ['a', "dog's", 'cafe', 'bar', 'open']
    """
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", straighten_quotes(text))
        text = "".join(character for character in decomposed if not unicodedata.combining(character))
    return _WORD.findall(text.casefold())


def join_ngrams(words: list[str], size: int) -> list[tuple[str, ...]]:
    """Give all runs of ``size`` words, in order; a text of fewer words is one run.

    Example:
        >>> join_ngrams(["a", "red", "dog"], 2)
        [('a', 'red'), ('red', 'dog')]
        >>> join_ngrams(["dog"], 2)
        [('dog',)]
    """
    return [tuple(words[start : start + size]) for start in range(max(len(words) - size, 0) + 1)]


def measure_jaccard(one: Set[tuple[str, ...]], other: Set[tuple[str, ...]]) -> float:
    """Give the share of common runs among all runs of two texts, of which one has any.

    Example:
        >>> measure_jaccard({("a", "dog"), ("dog", "runs")}, {("a", "dog")})
        0.5
    """
    num_common = len(one & other)
    return num_common / (len(one) + len(other) - num_common)
