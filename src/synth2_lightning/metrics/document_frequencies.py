"""How many pictures of a reference set hold each n-gram: counted once, stored, and scored with anywhere."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from synth2_lightning.metrics.ngrams import Ints, count_ngrams, indices, split_words
from synth2_lightning.parquet import read_parquet, write_parquet

_FORMAT = b"synth2_document_frequencies"
_NUM_PICTURES = b"num_pictures"
_EXPECTED = "what DocumentFrequencies.save() writes"


@dataclass(frozen=True, slots=True, eq=False)
class DocumentFrequencies:
    """How many pictures' references hold each n-gram.

    An n-gram that a single picture holds is left out, because CIDEr counts those that none holds as if one did.

    Args:
        num_pictures: Pictures that were counted in.
        counts: Pictures per n-gram of one to four tokens, written with single spaces between them.

    Example:
        >>> frequencies = count_document_frequencies({"1": ["a red dog", "a dog"], "2": ["a cat"], "3": ["a red cat"]})
        >>> frequencies.num_pictures, frequencies.counts
        (3, {'a': 3, 'red': 2, 'cat': 2, 'a red': 2})
    """

    num_pictures: int
    counts: Mapping[str, int]

    def look_up(self, ngrams: Iterable[str]) -> Ints:
        """Pictures that hold each n-gram; 0 where they are fewer than two."""
        return indices(self.counts.get(ngram, 0) for ngram in ngrams)

    def save(self, path: Path) -> None:
        """Write a Parquet file.

        Args:
            path: Where it goes; its folder must be there.
        """
        names, counts = list(self.counts), list(self.counts.values())
        table = pa.table({"ngram": pa.array(names, pa.string()), "pictures": pa.array(counts, pa.int32())})
        metadata = {_FORMAT: b"1", _NUM_PICTURES: str(self.num_pictures).encode()}
        write_parquet(table.replace_schema_metadata(metadata), path)


def load_document_frequencies(path: Path) -> DocumentFrequencies:
    """Read what :meth:`DocumentFrequencies.save` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds something else.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     count_document_frequencies({"1": ["a dog"], "2": ["a cat"]}).save(Path(folder) / "pets.parquet")
        ...     load_document_frequencies(Path(folder) / "pets.parquet").counts
        {'a': 2}
    """
    table = read_parquet(path, way_out=f"Expected {_EXPECTED}.")
    metadata = table.schema.metadata or {}
    if metadata.get(_FORMAT) != b"1":
        raise ValueError(
            f"{path} holds no document frequencies; its columns are {table.column_names}. Expected {_EXPECTED}."
        )
    try:
        counts = dict(zip(table["ngram"].to_pylist(), table["pictures"].to_pylist(), strict=True))
        return DocumentFrequencies(int(metadata[_NUM_PICTURES]), counts)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); expected {_EXPECTED}. Make it again.") from error


def count_document_frequencies(references: Mapping[str, Sequence[str]]) -> DocumentFrequencies:
    """Count in how many pictures' references each n-gram is.

    Args:
        references: What people wrote, by key of the picture.

    Raises:
        ValueError: If there is no picture.

    Example:
        >>> count_document_frequencies({"1": ["two dogs"], "2": ["two cats", "two cats"]}).counts
        {'two': 2}
    """
    if not references:
        raise ValueError("Document frequencies were asked for over no picture at all; expected references of some.")
    pictures = np.repeat(np.arange(len(references)), indices(map(len, references.values())))
    vocabulary, words, captions = split_words(chain.from_iterable(references.values()))
    counts: dict[str, int] = {}
    for ngrams in count_ngrams(words, captions):
        held = ngrams.count_pictures(np.arange(len(pictures)), pictures)
        counts |= {
            ngram: count
            for ngram, count in zip(ngrams.spell(words, vocabulary), held.tolist(), strict=True)
            if count > 1
        }
    return DocumentFrequencies(len(references), counts)
