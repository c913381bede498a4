"""Near duplicates by the Jaccard similarity of word sets."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from synth2_lightning.io.extras import require_extra
from synth2_lightning.metrics.diversity import split_caption

_THRESHOLD = 0.8
_BANDS, _ROWS = 25, 5  # of MinHash: misses one in 20,000 pairs at the threshold


def find_near_duplicates(captions: Sequence[str], among: Sequence[str] | None = None) -> list[bool]:
    """Return for each caption whether it has a near duplicate.

    Near duplicates have word sets, ignoring case and punctuation, with a Jaccard similarity of at least 0.8. Candidates
    are found by MinHash LSH (A. Broder 1997) and compared exactly, so there are no false positives.

    Args:
        captions: The captions to test.
        among: Captions to compare with, such as those of an evaluation set. By default, the other ``captions``.

    Example:
        >>> find_near_duplicates(["a dog runs", "A dog runs.", "two cats"])
        [True, True, False]
        >>> find_near_duplicates(["a dog runs", "a fox"], among=["A dog runs!"])
        [True, False]
    """
    require_extra("datasketch", "captions")
    from datasketch import MinHashLSH

    texts = [_split(caption) for caption in captions]
    pool = Counter(texts if among is None else map(_split, among))
    fewest = 2 if among is None else 1  # a caption is not a duplicate of itself
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
