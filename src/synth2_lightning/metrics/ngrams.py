"""The n-grams of many captions at once, counted in arrays."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synth2_lightning.metrics.ptb import tokenize

MAX_N = 4  # words in the longest n-gram

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NGrams:
    """How often each caption holds each n-gram of one length: a sparse matrix, sorted by caption, then by n-gram.

    Args:
        captions: The caption of each entry.
        ids: The n-gram of each entry.
        counts: How often it is there.
        places: Per n-gram, the position of one of its occurrences among all words.
        size: Words in each n-gram.

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
        """Number of different n-grams; at least one."""
        return len(self.places)

    def of(self, captions: Ints) -> tuple[Ints, Ints]:
        """Entries of the listed captions, as positions in the list and positions in the matrix."""
        starts = np.searchsorted(self.captions, captions, side="left")
        lengths = np.searchsorted(self.captions, captions, side="right") - starts
        rows = np.repeat(np.arange(len(captions)), lengths)
        entries = np.arange(len(rows)) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        return rows, entries

    def find(self, captions: Ints, ids: Ints) -> tuple[npt.NDArray[np.bool_], Ints]:
        """Whether these captions hold these n-grams, and the entries of those that do."""
        matrix = self.captions * self.num_ids + self.ids
        wanted = captions * self.num_ids + ids
        entries = np.minimum(np.searchsorted(matrix, wanted), max(len(matrix) - 1, 0))
        found = matrix[entries] == wanted
        return found, entries[found]

    def count_pictures(self, captions: Ints, pictures: Ints) -> Ints:
        """Count, per n-gram, the pictures that hold it in any of their captions.

        Args:
            captions: Captions of pictures.
            pictures: The picture of each.
        """
        rows, entries = self.of(captions)
        # Counted only because numpy then sorts, which is ten times faster here than its hash table.
        held, _ = np.unique(pictures[rows] * self.num_ids + self.ids[entries], return_counts=True)
        return np.bincount(held % self.num_ids, minlength=self.num_ids)

    def spell(self, words: Ints, vocabulary: Sequence[str]) -> Iterator[str]:
        """Write the n-grams out, in the order of their ids, words apart by single spaces.

        Args:
            words: All words of all captions.
            vocabulary: The spelling of each word.
        """
        positions = self.places[:, None] + np.arange(self.size)
        for row in words[positions].tolist() if len(words) else ():
            yield " ".join(vocabulary[word] for word in row)


def split_words(texts: Iterable[str]) -> tuple[list[str], Ints, Ints]:
    """Split captions into numbered words.

    Returns:
        The vocabulary, by number; all words of all captions; and the caption that each belongs to.

    Example:
        >>> vocabulary, words, captions = split_words(["A dog.", "a cat"])
        >>> [vocabulary[word] for word in words], captions.tolist()
        (['a', 'dog', 'a', 'cat'], [0, 0, 1, 1])
    """
    number_of = numbering()
    end = number_of["\0"]  # the tokeniser lets no such word through
    words = indices(map(number_of.__getitem__, " \0 ".join(map(tokenize, texts)).split()))
    captions = np.cumsum(words == end)
    return list(number_of), words[words != end], captions[words != end]


def count_ngrams(words: Ints, captions: Ints) -> Iterator[NGrams]:
    """Count the n-grams of every caption, for each length from one to four.

    Args:
        words: All words of all captions.
        captions: The caption of each.
    """
    ids, base = words.copy(), int(words.max(initial=0)) + 1
    starts = np.arange(len(words))
    num_ids = base
    for size in range(1, MAX_N + 1):
        if size > 1:
            # An n-gram is the (n-1)-gram at its place and one word more, if that is still of the same caption.
            starts = starts[starts < len(words) - size + 1]
            starts = starts[captions[starts] == captions[starts + size - 1]]
            distinct, ids[starts] = np.unique(ids[starts] * base + words[starts + size - 1], return_inverse=True)
            num_ids = max(len(distinct), 1)
        places = np.zeros(num_ids, np.int64)
        places[ids[starts]] = starts
        pairs, counts = np.unique(captions[starts] * num_ids + ids[starts], return_counts=True)
        yield NGrams(pairs // num_ids, pairs % num_ids, counts, places, size)


def numbering() -> defaultdict[str, int]:
    """Number strings as they are first asked for.

    Example:
        >>> number_of = numbering()
        >>> number_of["dog"], number_of["cat"], number_of["dog"]
        (0, 1, 0)
    """
    number_of: defaultdict[str, int] = defaultdict()
    number_of.default_factory = number_of.__len__
    return number_of


def indices(numbers: Iterable[int]) -> Ints:
    """Collect integers in an array.

    Example:
        >>> indices(range(3)).tolist()
        [0, 1, 2]
    """
    return np.fromiter(numbers, dtype=np.int64)
