"""Document frequencies of n-grams in a reference set, stored in Parquet."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from synth2_lightning.io.parquet import read_parquet, write_parquet
from synth2_lightning.metrics.ngrams import Ints, count_ngrams, indices, split_words

_FORMAT = b"synth2_document_frequencies"
_NUM_IMAGES = b"num_images"
_EXPECTED = "a file written by DocumentFrequencies.save()"


@dataclass(frozen=True, slots=True, eq=False)
class DocumentFrequencies:
    """Number of images whose references contain each n-gram.

    N-grams of a single image are omitted because CIDEr treats a document frequency of 0 as 1.

    Args:
        num_images: Number of images in the reference set.
        counts: Number of images by n-gram: one to four tokens, separated by single spaces.

    Example:
        >>> frequencies = count_document_frequencies({"1": ["a red dog", "a dog"], "2": ["a cat"], "3": ["a red cat"]})
        >>> frequencies.num_images, frequencies.counts
        (3, {'a': 3, 'red': 2, 'cat': 2, 'a red': 2})
    """

    num_images: int
    counts: Mapping[str, int]

    def look_up(self, ngrams: Iterable[str]) -> Ints:
        """Return the document frequency of each n-gram; 0 if it is less than two."""
        return indices(self.counts.get(ngram, 0) for ngram in ngrams)

    def save(self, path: Path) -> None:
        """Write a Parquet file in an existing folder."""
        names, counts = list(self.counts), list(self.counts.values())
        table = pa.table({"ngram": pa.array(names, pa.string()), "images": pa.array(counts, pa.int32())})
        metadata = {_FORMAT: b"1", _NUM_IMAGES: str(self.num_images).encode()}
        write_parquet(table.replace_schema_metadata(metadata), path)


def load_document_frequencies(path: Path) -> DocumentFrequencies:
    """Read a file written by :meth:`DocumentFrequencies.save`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file has another format.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     count_document_frequencies({"1": ["a dog"], "2": ["a cat"]}).save(Path(folder) / "pets.parquet")
        ...     load_document_frequencies(Path(folder) / "pets.parquet").counts
        {'a': 2}
    """
    table = read_parquet(path, advice=f"Expected {_EXPECTED}.")
    metadata = table.schema.metadata or {}
    if metadata.get(_FORMAT) != b"1":
        raise ValueError(
            f"{path} contains no document frequencies; its columns are {table.column_names}. Expected {_EXPECTED}."
        )
    try:
        counts = dict(zip(table["ngram"].to_pylist(), table["images"].to_pylist(), strict=True))
        if (num_images := int(metadata[_NUM_IMAGES])) < 1 or None in counts or None in counts.values():
            raise ValueError(f"{num_images} images, or missing values")
        return DocumentFrequencies(num_images, counts)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); expected {_EXPECTED}. Count them again.") from error


def count_document_frequencies(references: Mapping[str, Sequence[str]]) -> DocumentFrequencies:
    """Count the document frequencies of n-grams in references, which are given by image key.

    Raises:
        ValueError: If there is no image.

    Example:
        >>> count_document_frequencies({"1": ["two dogs"], "2": ["two cats", "two cats"]}).counts
        {'two': 2}
    """
    if not references:
        raise ValueError("Document frequencies got no images; expected references of at least one.")
    images = np.repeat(np.arange(len(references)), indices(map(len, references.values())))
    vocabulary, words, captions = split_words(chain.from_iterable(references.values()))
    counts: dict[str, int] = {}
    for ngrams in count_ngrams(words, captions):
        frequencies = ngrams.count_images(np.arange(len(images)), images)
        counts |= {
            ngram: count
            for ngram, count in zip(ngrams.to_strings(words, vocabulary), frequencies.tolist(), strict=True)
            if count > 1
        }
    return DocumentFrequencies(len(references), counts)
