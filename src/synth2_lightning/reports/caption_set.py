"""Caption sets: partitions of rows with counts over all of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth2_lightning.io.locations import resolve
from synth2_lightning.reports.engine import CaptionEngine, SingleProcessEngine
from synth2_lightning.reports.partitions import (
    MAX_CHARACTERS,
    Partition,
    list_captions,
    list_class_names,
    list_partitions,
    truncate_captions,
)
from synth2_lightning.reports.sampling import bound_priorities, compute_priorities
from synth2_lightning.sources.jsonfile import read_json

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Counts over rows.

    Args:
        num_rows: Number of rows, including blank captions.
        num_captions: Number of captions that are not blank.
        class_sizes: Number of captions by class name, in the order of the rows; the name is empty if unknown.
        num_long: Number of captions that are truncated for measurements.
    """

    num_rows: int = 0
    num_captions: int = 0
    class_sizes: Counter[str] = field(default_factory=Counter)
    num_long: int = 0

    def __add__(self, other: "RowCounts") -> "RowCounts":
        """Return the sum of the counts."""
        sizes = self.class_sizes.copy()
        sizes.update(other.class_sizes)
        return RowCounts(
            self.num_rows + other.num_rows,
            self.num_captions + other.num_captions,
            sizes,
            self.num_long + other.num_long,
        )


@dataclass(frozen=True, slots=True, eq=False)
class CaptionSet:
    """Captions with additional columns, read lazily.

    Args:
        name: Name in tables and charts.
        path: File or folder of the set.
        partitions: Rows, including blank captions, with a column ``caption`` and optionally ``class_name``.
        counts: Counts over all rows.
        manifest: Content of ``manifest.json``; empty if there is none.
        engine: Processes the partitions.

    Example:
        >>> import pyarrow as pa
        >>> from synth2_lightning.reports.partitions import TablePartition
        >>> rows = pa.table({"caption": ["a fox", "a dog", " "], "class_name": ["fox", None, None]})
        >>> captions = count_captions("animals", Path("animals.csv"), [TablePartition(rows)])
        >>> captions.captions, captions.counts.class_sizes["fox"], captions.num_blank
        (['a fox', 'a dog'], 1, 1)
    """

    name: str
    path: Path
    partitions: Sequence[Partition]
    counts: RowCounts
    manifest: dict[str, Any]
    engine: CaptionEngine

    def __len__(self) -> int:
        """Number of captions."""
        return self.counts.num_captions

    @property
    def num_blank(self) -> int:
        """Number of rows with a blank caption, which are ignored."""
        return self.counts.num_rows - self.counts.num_captions

    @property
    def captions(self) -> list[str]:
        """All captions, truncated to the measured length, in memory."""
        return [caption for _, caption in self._sample(_SampleCaptions(_MAX_PRIORITY, seed=0))]

    def sample(self, num: int, seed: int) -> list[str]:
        """Return a random sample of truncated captions without replacement; deterministic for a seed."""
        num, factor = min(num, len(self)), 1
        while True:
            bound = bound_priorities(num, len(self), factor)
            sampled = self._sample(_SampleCaptions(bound, seed))
            if len(sampled) >= num:
                return [caption for _, caption in sorted(sampled, key=lambda pair: pair[0])[:num]]
            factor *= 2

    def _sample(self, sample: "_SampleCaptions") -> list[tuple[int, str]]:
        return [pair for found in self.engine.map(sample, self.partitions) for pair in found]


_MAX_PRIORITY = 2**64 - 1


@dataclass(frozen=True, slots=True)
class _SampleCaptions:
    bound: int
    seed: int

    def __call__(self, partition: Partition) -> list[tuple[int, str]]:
        priorities = compute_priorities(partition.first_row, partition.num_rows, self.seed)
        is_sampled = priorities <= self.bound
        sampled: list[tuple[int, str]] = []
        if not is_sampled.any():
            return sampled
        for first, rows in partition.read(["caption"]):
            captions = truncate_captions(rows)
            start = first - partition.first_row
            sampled.extend(
                (int(priorities[start + offset]), captions[offset])
                for offset in is_sampled[start : start + len(rows)].nonzero()[0].tolist()
                if captions[offset]
            )
        return sampled


def count_rows(partition: Partition) -> RowCounts:
    """Return the counts of a partition."""
    counts = RowCounts()
    for _, rows in partition.read(["caption", "class_name"]):
        captions = list_captions(rows)
        names = [name for caption, name in zip(captions, list_class_names(rows), strict=True) if caption]
        num_long = sum(len(caption) > MAX_CHARACTERS for caption in captions)
        counts += RowCounts(len(rows), len(names), Counter(names), num_long)
    return counts


def count_captions(
    name: str,
    path: Path,
    partitions: Sequence[Partition],
    manifest: dict[str, Any] | None = None,
    engine: CaptionEngine | None = None,
) -> CaptionSet:
    """Create a caption set by counting over its partitions; see :class:`CaptionSet` for the arguments.

    Raises:
        OSError: If a file does not exist.
        ValueError: If a file is damaged, or there is no caption.
    """
    engine = engine or SingleProcessEngine()
    counts = sum(engine.map(count_rows, partitions), RowCounts())
    if not counts.num_captions:
        raise ValueError(f"{path} has {counts.num_rows} rows but no caption; expected at least one.")
    return CaptionSet(name, path, partitions, counts, manifest or {}, engine)


def read_caption_set(location: str, engine: CaptionEngine | None = None) -> CaptionSet:
    r"""Read a caption set.

    Args:
        location: ``PATH`` or ``NAME=PATH``, in a format of :func:`read_caption_rows`. The name defaults to that of the
            file or folder.
        engine: Processes the set; by default in this process.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the file is damaged, or has no caption.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "captions.txt"
        ...     _ = path.write_text("a red circle\n\na fox\n")
        ...     captions = read_caption_set(f"shapes={path}")
        >>> captions.name, len(captions), captions.num_blank
        ('shapes', 2, 1)
    """
    name, separator, value = location.partition("=")
    if not separator or "://" in name or Path(location).exists():  # folders of partitions are called COLUMN=VALUE
        name, value = "", location
    path = resolve(value, f"caption set {name or value!r}")
    manifest = read_json(path / MANIFEST, "an object") if (path / MANIFEST).is_file() else {}
    return count_captions(name or path.resolve().stem, path, list_partitions(path), manifest, engine)


def read_caption_sets(locations: Sequence[str], engine: CaptionEngine | None = None) -> list[CaptionSet]:
    """Read several caption sets.

    Raises:
        ValueError: If two sets have the same name.
    """
    sets = [read_caption_set(location, engine) for location in locations]
    for number, one in enumerate(sets):
        for other in sets[:number]:
            if one.name == other.name:
                raise ValueError(
                    f"Two caption sets are named {one.name!r}: {other.path} and {one.path}. Expected different names, "
                    "such as real=PATH and written=PATH."
                )
    return sets
