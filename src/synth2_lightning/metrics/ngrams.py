"""Vectorized n-gram counts of many captions."""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from synth2_lightning.metrics.ptb import split_parts, tokenize_part

MAX_N = 4  # as in BLEU and CIDEr

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NGrams:
    """Counts of the n-grams of one length as a sparse matrix in COO format, sorted by caption and n-gram.

    Args:
        captions: Caption of each entry.
        ids: N-gram id of each entry.
        counts: Number of occurrences of the n-gram in the caption.
        places: Position of one occurrence of each n-gram in the words of all captions.
        size: Number of words per n-gram.

    Example:
        >>> _, words, captions = split_words(["a dog", "a a"])
        >>> next(count_ngrams(words, captions)).counts.tolist()
        [1, 1, 2]
    """

    captions: Ints
    ids: Ints
    counts: Ints
    places: Ints
    size: int

    @property
    def num_ids(self) -> int:
        """Number of distinct n-grams; at least one."""
        return len(self.places)

    def select(self, captions: Ints) -> tuple[Ints, Ints]:
        """Return the entries of some captions: indices into ``captions``, and indices into the matrix."""
        starts = np.searchsorted(self.captions, captions, side="left")
        lengths = np.searchsorted(self.captions, captions, side="right") - starts
        return expand(starts, lengths)

    def find(self, captions: Ints, ids: Ints) -> tuple[npt.NDArray[np.bool_], Ints]:
        """Return whether each caption contains its n-gram, and the entries of those that do."""
        matrix = self.captions * self.num_ids + self.ids
        wanted = captions * self.num_ids + ids
        entries = np.minimum(np.searchsorted(matrix, wanted), max(len(matrix) - 1, 0))
        found = matrix[entries] == wanted
        return found, entries[found]

    def count_images(self, captions: Ints, images: Ints) -> Ints:
        """Return the document frequency of each n-gram: the number of images with a caption that contains it."""
        rows, entries = self.select(captions)
        # With return_counts numpy sorts, which is ten times faster here than its hash table.
        pairs, _ = np.unique(images[rows] * self.num_ids + self.ids[entries], return_counts=True)
        return np.bincount(pairs % self.num_ids, minlength=self.num_ids)

    def to_strings(self, words: Ints, vocabulary: Sequence[str]) -> Iterator[str]:
        """Yield the n-grams in the order of their ids, as words separated by single spaces."""
        # Without any n-gram there is one id of none, which may be longer than all words together.
        positions = np.minimum(self.places[:, None] + np.arange(self.size), len(words) - 1)
        for row in words[positions].tolist() if len(words) else ():
            yield " ".join(vocabulary[word] for word in row)


def split_words(texts: Iterable[str]) -> tuple[list[str], Ints, Ints]:
    """Tokenize captions into word ids.

    Returns:
        The vocabulary, the word ids of all captions, and the caption index of each word.

    Example:
        >>> vocabulary, words, captions = split_words(["A dog.", "a cat"])
        >>> [vocabulary[word] for word in words], captions.tolist()
        (['a', 'dog', 'a', 'cat'], [0, 0, 1, 1])
    """
    parts, part_of, num_parts = _number_strings(map(split_parts, texts))
    # Each distinct part is tokenized once; its words are a slice of `word_of`.
    vocabulary, word_of, num_words = _number_strings(tokenize_part(part).split() for part in parts)
    rows, places = expand((np.cumsum(num_words) - num_words)[part_of], num_words[part_of])
    return vocabulary, word_of[places], np.repeat(np.arange(len(num_parts)), num_parts)[rows]


def _number_strings(lists: Iterable[list[str]]) -> tuple[list[str], Ints, Ints]:
    """Return the distinct strings, the number of each string of each list, and the lengths of the lists."""
    number_of, lengths = numbering(), array("q")

    def count() -> Iterator[list[str]]:
        for each in lists:  # none is kept: the garbage collector would visit all of them again and again
            lengths.append(len(each))
            yield each

    numbers = indices(map(number_of.__getitem__, chain.from_iterable(count())))
    return list(number_of), numbers, indices(lengths)


def count_ngrams(words: Ints, captions: Ints) -> Iterator[NGrams]:
    """Yield the n-gram counts for each length from 1 to 4, from the output of :func:`split_words`."""
    ids, base = words.copy(), int(words.max(initial=0)) + 1
    starts = np.arange(len(words))
    num_ids = base
    for size in range(1, MAX_N + 1):
        if size > 1:
            # Extend each (n-1)-gram by the next word of the same caption.
            starts = starts[starts < len(words) - size + 1]
            starts = starts[captions[starts] == captions[starts + size - 1]]
            distinct, ids[starts] = np.unique(ids[starts] * base + words[starts + size - 1], return_inverse=True)
            num_ids = max(len(distinct), 1)
        places = np.zeros(num_ids, np.int64)
        places[ids[starts]] = starts
        pairs, counts = np.unique(captions[starts] * num_ids + ids[starts], return_counts=True)
        yield NGrams(pairs // num_ids, pairs % num_ids, counts, places, size)


def expand(starts: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """Return the elements of slices: the slice of each, and its place.

    Example:
        >>> [values.tolist() for values in expand(np.array([7, 3]), np.array([2, 1]))]
        [[0, 0, 1], [7, 8, 3]]
    """
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return rows, np.arange(len(rows)) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)


def numbering() -> defaultdict[str, int]:
    """Return a mapping that assigns consecutive ids to strings on first access.

    Example:
        >>> number_of = numbering()
        >>> number_of["dog"], number_of["cat"], number_of["dog"]
        (0, 1, 0)
    """
    number_of: defaultdict[str, int] = defaultdict()
    number_of.default_factory = number_of.__len__
    return number_of


def indices(numbers: Iterable[int]) -> Ints:
    """Return integers as an array."""
    return np.fromiter(numbers, dtype=np.int64)
