"""A list of names that a user wrote: a text file, or a table with more columns."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synth2_lightning.concepts.listed import ListedConcepts
from synth2_lightning.concepts.wordnet import read_wordnet
from synth2_lightning.locations import resolve
from synth2_lightning.tables import read_lines, read_rows, take_key
from synth2_lightning.types import Concept


class TableConcepts(ListedConcepts):
    """One name a line of a text file (``.txt``), or a row of a table (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``).

    The key of a concept is its name, so every name stands once. Empty names are left out and counted. A table may have
    the columns ``definition``, ``branch`` and ``weight``, if they are asked for; where nobody says the branch, WordNet
    does, as far as it knows the name.

    Args:
        table: The file.
        name_column: Column of the names.
        definition_column: Column of the definitions, where there is one.
        branch_column: Column of the branches, where there is one.
        weight_column: Column of the weights, numbers above 0, where there is one.
        name: What records and reports call the concepts; the file's name without suffix where left out.
        delimiter: The character between the fields of a ``.csv`` or ``.tsv`` table, where it is another than usual.

    Raises:
        ValueError: If columns are named of a text file.

    Example:
        >>> TableConcepts("birds.csv", definition_column="description").name
        'birds'
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
        if columns and table.endswith(".txt") and delimiter is None:
            raise ValueError(
                f"Concepts {self.name!r} are to have the columns {columns}, but {table} is a text file and has "
                "none. Leave them out, or write a table (.csv, .tsv, .jsonl or .parquet)."
            )

    def read_concepts(self, excluded: Counter[str]) -> Iterator[Concept]:
        """Go through the lines or rows.

        Raises:
            FileNotFoundError: If the file does not exist.
            ValueError: If it is of another kind, lacks a column, or a weight is no number above 0.
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
        asked = (self.name_column, self.definition_column, self.branch_column, self.weight_column)
        rows = read_rows(path, [column for column in asked if column], self.delimiter)
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
            raise ValueError(f"{where} holds {value!r} under {self.weight_column!r}; expected a number above 0.")
        return weight


def _text(row: dict[str, Any], column: str | None, where: str) -> str:
    return take_key(row[column], where, column) if column else ""
