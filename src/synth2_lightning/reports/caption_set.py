"""A caption set as reports and selections see it: where its rows lie, and what is counted in all of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth2_lightning.locations import resolve
from synth2_lightning.reports.engine import CaptionEngine, OneProcess
from synth2_lightning.reports.partitions import (
    NUM_MEASURED,
    Partition,
    list_beginnings,
    list_captions,
    list_class_names,
    list_partitions,
)
from synth2_lightning.reports.sampling import bound_priorities, draw_priorities
from synth2_lightning.sources.jsonfile import read_json

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Census:
    """What is counted in rows.

    Args:
        num_rows: All of them.
        num_captions: Those whose caption is not blank.
        class_sizes: How many captions were written for what, in the order of the rows; empty where nobody said.
        num_long: Captions of which only the beginning is measured.

    Example:
        >>> Census(3, 2, Counter({"fox": 2})).num_captions
        2
    """

    num_rows: int = 0
    num_captions: int = 0
    class_sizes: Counter[str] = field(default_factory=Counter)
    num_long: int = 0

    def __add__(self, other: "Census") -> "Census":
        """Count both."""
        sizes = self.class_sizes.copy()
        sizes.update(other.class_sizes)
        return Census(
            self.num_rows + other.num_rows,
            self.num_captions + other.num_captions,
            sizes,
            self.num_long + other.num_long,
        )


@dataclass(frozen=True, slots=True, eq=False)
class CaptionSet:
    """Captions with whatever stands beside them; the rows stay where they are.

    Args:
        name: What tables and charts call it.
        path: Where it is read.
        partitions: Its rows, blank ones included, with a column ``caption`` and perhaps ``class_name``.
        census: What is counted in them.
        manifest: What made the set; empty where nobody said.
        engine: Goes through the partitions.

    Example:
        >>> import pyarrow as pa
        >>> from synth2_lightning.reports.partitions import TablePartition
        >>> rows = pa.table({"caption": ["a fox", "a dog", " "], "class_name": ["fox", None, None]})
        >>> captions = count_captions("animals", Path("animals.csv"), [TablePartition(rows)])
        >>> captions.captions, captions.census.class_sizes["fox"], captions.num_blank
        (['a fox', 'a dog'], 1, 1)
    """

    name: str
    path: Path
    partitions: Sequence[Partition]
    census: Census
    manifest: dict[str, Any]
    engine: CaptionEngine

    def __len__(self) -> int:
        """Number of captions."""
        return self.census.num_captions

    @property
    def num_blank(self) -> int:
        """Rows that are left out because their caption is blank."""
        return self.census.num_rows - self.census.num_captions

    @property
    def captions(self) -> list[str]:
        """The beginnings of all texts, in memory."""
        return [caption for _, caption in self._take(_TakeCaptions(_EVERYTHING, seed=0))]

    def sample(self, num: int, seed: int) -> list[str]:
        """Draw beginnings of captions, none twice, in an order of chance; the same seed draws the same ones."""
        num, factor = min(num, len(self)), 1
        while True:
            bound = bound_priorities(num, len(self), factor)
            taken = self._take(_TakeCaptions(bound, seed))
            if len(taken) >= num:
                return [caption for _, caption in sorted(taken, key=lambda pair: pair[0])[:num]]
            factor *= 2

    def _take(self, take: "_TakeCaptions") -> list[tuple[int, str]]:
        return [pair for found in self.engine.map(take, self.partitions) for pair in found]


_EVERYTHING = 2**64 - 1


@dataclass(frozen=True, slots=True)
class _TakeCaptions:
    bound: int
    seed: int

    def __call__(self, partition: Partition) -> list[tuple[int, str]]:
        priorities = draw_priorities(partition.first_row, partition.num_rows, self.seed)
        is_taken = priorities <= self.bound
        taken: list[tuple[int, str]] = []
        if not is_taken.any():
            return taken
        for first, rows in partition.read(["caption"]):
            captions = list_beginnings(rows)
            start = first - partition.first_row
            taken.extend(
                (int(priorities[start + offset]), captions[offset])
                for offset in is_taken[start : start + len(rows)].nonzero()[0].tolist()
                if captions[offset]
            )
        return taken


def take_census(partition: Partition) -> Census:
    """Count the rows of a partition.

    Example:
        >>> import pyarrow as pa
        >>> from synth2_lightning.reports.partitions import TablePartition
        >>> take_census(TablePartition(pa.table({"caption": ["a fox", ""]})))
        Census(num_rows=2, num_captions=1, class_sizes=Counter({'': 1}), num_long=0)
    """
    census = Census()
    for _, rows in partition.read(["caption", "class_name"]):
        captions = list_captions(rows)
        names = [name for caption, name in zip(captions, list_class_names(rows), strict=True) if caption]
        num_long = sum(len(caption) > NUM_MEASURED for caption in captions)
        census += Census(len(rows), len(names), Counter(names), num_long)
    return census


def count_captions(
    name: str,
    path: Path,
    partitions: Sequence[Partition],
    manifest: dict[str, Any] | None = None,
    engine: CaptionEngine | None = None,
) -> CaptionSet:
    """Count what is in partitions, and make them a caption set; arguments as of :class:`CaptionSet`.

    Raises:
        OSError: If a file is gone.
        ValueError: If a file is damaged, or there is not one caption.
    """
    engine = engine or OneProcess()
    census = sum(engine.map(take_census, partitions), Census())
    if not census.num_captions:
        raise ValueError(f"{path} holds {census.num_rows} rows and not one caption; expected at least one.")
    return CaptionSet(name, path, partitions, census, manifest or {}, engine)


def read_caption_set(location: str, engine: CaptionEngine | None = None) -> CaptionSet:
    r"""Read a caption set.

    Args:
        location: A path as :func:`read_caption_rows` reads it, with a name before it if one is wanted: ``NAME=PATH``.
            Without, it is called like its file or folder.
        engine: Goes through the set; this process if ``None``.

    Raises:
        FileNotFoundError: If nothing lies there.
        ValueError: If the file is damaged, or holds not one caption.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "captions.txt"
        ...     _ = path.write_text("a red circle\n\na fox\n")
        ...     captions = read_caption_set(f"shapes={path}")
        >>> captions.name, len(captions), captions.num_blank
        ('shapes', 2, 1)
    """
    name, separator, given = location.partition("=")
    if not separator or Path(location).exists():
        name, given = "", location
    path = resolve(given, f"caption set {name or given!r}")
    manifest = read_json(path / MANIFEST, "an object") if (path / MANIFEST).is_file() else {}
    return count_captions(name or path.resolve().stem, path, list_partitions(path), manifest, engine)


def read_caption_sets(locations: Sequence[str], engine: CaptionEngine | None = None) -> list[CaptionSet]:
    """Read several caption sets of different names.

    Raises:
        ValueError: If two have the same name.
    """
    sets = [read_caption_set(location, engine) for location in locations]
    for number, one in enumerate(sets):
        for other in sets[:number]:
            if one.name == other.name:
                raise ValueError(
                    f"Two caption sets are called {one.name!r}, {other.path} and {one.path}; expected different names. "
                    "Give them names, such as real=PATH and written=PATH."
                )
    return sets
