"""Near duplicates: captions that say the same in nearly the same words."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from synth2_lightning.metrics.diversity import split_caption

_THRESHOLD = 0.8
_BANDS, _ROWS = 25, 5  # of MinHash: of pairs at the threshold one in 20,000 is missed, and few below are looked at


def find_near_duplicates(captions: Sequence[str], among: Sequence[str] | None = None) -> list[bool]:
    """Say of every caption whether another one has nearly the same words.

    Nearly the same is a Jaccard index of the two *sets of words*, case and punctuation aside, of 0.8 or more, such as
    ten words of which one is another. Candidates are found by MinHash (A. Broder 1997), then compared exactly; so what
    is said to be a duplicate is one, and hardly any is missed.

    Args:
        captions: The captions to judge.
        among: Where to look, such as the captions of an evaluation set; by default among the other ``captions``.

    Returns:
        One answer per caption.

    Example:
        >>> find_near_duplicates(["a dog runs", "A dog runs.", "two cats"])
        [True, True, False]
        >>> find_near_duplicates(["a dog runs", "a fox"], among=["A dog runs!"])
        [True, False]
    """
    from datasketch import MinHashLSH

    texts = [_split(caption) for caption in captions]
    pool = Counter(texts if among is None else map(_split, among))
    fewest = 2 if among is None else 1  # no caption is a duplicate of itself
    index = MinHashLSH(num_perm=_BANDS * _ROWS, params=(_BANDS, _ROWS))
    for text, hashes in _hash(pool):
        index.insert(text, hashes, check_duplication=False)
    found = {
        text: pool[text] >= fewest
        or any(_jaccard(text, other) >= _THRESHOLD for other in index.query(hashes) if other != text)
        for text, hashes in _hash(Counter(texts))
    }
    return [found[text] for text in texts]


def _split(caption: str) -> frozenset[str]:
    return frozenset(split_caption(caption))


def _hash(texts: Counter[frozenset[str]]) -> list[tuple[frozenset[str], Any]]:
    from datasketch import MinHash

    words = [[word.encode() for word in text] for text in texts]
    return list(zip(texts, MinHash.generator(words, num_perm=_BANDS * _ROWS), strict=True))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)
