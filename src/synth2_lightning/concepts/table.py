"""Concepts from a text file or a table."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synth2_lightning.concepts.listed import ListedConcepts
from synth2_lightning.concepts.wordnet import read_wordnet
from synth2_lightning.io.locations import resolve
from synth2_lightning.io.tables import read_lines, read_rows, take_key
from synth2_lightning.types import Concept


class TableConcepts(ListedConcepts):
    """One concept per line of a text file (``.txt``) or row of a table (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``).

    The key of a concept is its name, so names must be unique. Empty names are excluded and counted. If the table has no
    branch, WordNet's branch of the name is used, if it has one.

    Args:
        table: Path of the file.
        name_column: Column of the names.
        definition_column: Column of the definitions, if any.
        branch_column: Column of the branches, if any.
        weight_column: Column of the weights (numbers above 0), if any.
        name: Name of the concepts in records and reports; by default the file's name without suffix.
        delimiter: Field delimiter of a ``.csv`` or ``.tsv`` table, if it is not the usual one.

    Raises:
        ValueError: If a further column is given for a text file.
    """

    def __init__(
        self,
        table: str,
        name_column: str = "name",
        definition_column: str | None = None,
        branch_column: str | None = None,
        weight_column: str | None = None,
        name: str | None = None,
        delimiter: str | None = None,
    ) -> None:
        super().__init__(name or Path(table).stem)
        self.table = table
        self.name_column = name_column
        self.definition_column = definition_column
        self.branch_column = branch_column
        self.weight_column = weight_column
        self.delimiter = delimiter
        columns = [column for column in (definition_column, branch_column, weight_column) if column]
        if columns and table.lower().endswith(".txt") and delimiter is None:
            raise ValueError(
                f"Concepts {self.name!r} got the columns {columns}, but {table} is a text file without columns; "
                "expected a table (.csv, .tsv, .jsonl or .parquet). Remove the columns, or convert the file."
            )

    def read_concepts(self, excluded: Counter[str]) -> Iterator[Concept]:
        """Yield the concepts in the order of the file.

        Raises:
            FileNotFoundError: If the file does not exist.
            ValueError: If the format is unknown, a column is missing, or a weight is not a number above 0.
        """
        wordnet = read_wordnet()
        for where, row in self._read():
            name = " ".join(_text(row, self.name_column, where).split())
            if not name:
                excluded["empty names"] += 1
                continue
            synset = wordnet.find(name)
            branch = _text(row, self.branch_column, where) or (wordnet.branch(synset) if synset else "")
            definition = _text(row, self.definition_column, where)
            yield Concept(name, name, definition, branch, self._weight(row, where))

    def _read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        path = resolve(self.table, f"table of concepts {self.name!r}")
        if path.suffix.lower() == ".txt" and self.delimiter is None:
            lines = read_lines(path)
            yield from ((f"{path}, line {number},", {self.name_column: line}) for number, line in enumerate(lines, 1))
            return
        columns = (self.name_column, self.definition_column, self.branch_column, self.weight_column)
        rows = read_rows(path, [column for column in columns if column], self.delimiter)
        yield from ((f"{path}, record {number},", row) for number, row in enumerate(rows, 1))

    def _weight(self, row: dict[str, Any], where: str) -> float:
        if self.weight_column is None:
            return 1.0
        value = row[self.weight_column]
        try:
            weight = float(value)
        except (TypeError, ValueError):
            weight = 0.0
        if not 0 < weight < float("inf"):
            raise ValueError(f"{where} has {value!r} in column {self.weight_column!r}; expected a number above 0.")
        return weight


def _text(row: dict[str, object], column: str | None, where: str) -> str:
    return take_key(row[column], where, column) if column else ""
