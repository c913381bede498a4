"""A caption set as reports and selections see it: its rows, and what its manifest says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synth2_lightning.locations import resolve
from synth2_lightning.sources.caption_files import read_caption_rows
from synth2_lightning.sources.jsonfile import read_json

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, eq=False)
class CaptionSet:
    """Captions with whatever stands beside them.

    Args:
        name: What tables and charts call it.
        path: Where it was read.
        rows: A row per caption, none of them blank, with a column ``caption`` and perhaps ``class_name``.
        num_blank: Rows that were left out because their caption is blank.
        manifest: What made the set; empty where nobody said.

    Example:
        >>> rows = pa.table({"caption": ["a fox", "a dog"], "class_name": ["fox", None]})
        >>> captions = CaptionSet("animals", Path("animals.csv"), rows, num_blank=0, manifest={})
        >>> captions.captions, captions.class_names
        (['a fox', 'a dog'], ['fox', ''])
    """

    name: str
    path: Path
    rows: pa.Table
    num_blank: int
    manifest: dict[str, Any]

    def __len__(self) -> int:
        """Number of captions."""
        return int(self.rows.num_rows)

    @property
    def captions(self) -> list[str]:
        """The texts."""
        return [caption.strip() for caption in self.rows["caption"].to_pylist()]

    @property
    def class_names(self) -> list[str]:
        """What each caption was written for; empty where nobody said."""
        if "class_name" not in self.rows.column_names:
            return [""] * len(self)
        return [str(name or "") for name in self.rows["class_name"].to_pylist()]

    def sample(self, num: int, seed: int) -> list[str]:
        """Draw captions, none twice; the same seed draws the same ones."""
        rows = np.random.default_rng(seed).permutation(len(self))[:num]
        captions = self.captions
        return [captions[row] for row in rows]


def read_caption_set(location: str) -> CaptionSet:
    r"""Read a caption set.

    Args:
        location: A path as :func:`read_caption_rows` reads it, with a name before it if one is wanted: ``NAME=PATH``.
            Without, it is called like its file or folder.

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
    rows = read_caption_rows(path)
    stripped = pc.fill_null(pc.utf8_trim_whitespace(rows["caption"].cast(pa.string())), "")
    filled = rows.filter(pc.not_equal(stripped, ""))
    if len(filled) == 0:
        raise ValueError(f"{path} holds {len(rows)} rows and not one caption; expected at least one.")
    manifest = read_json(path / MANIFEST, "an object") if (path / MANIFEST).is_file() else {}
    return CaptionSet(name or path.resolve().stem, path, filled, len(rows) - len(filled), manifest)


def read_caption_sets(locations: Sequence[str]) -> list[CaptionSet]:
    """Read several caption sets of different names.

    Raises:
        ValueError: If two have the same name.
    """
    sets = [read_caption_set(location) for location in locations]
    for number, one in enumerate(sets):
        for other in sets[:number]:
            if one.name == other.name:
                raise ValueError(
                    f"Two caption sets are called {one.name!r}, {other.path} and {one.path}; expected different names. "
                    "Give them names, such as real=PATH and written=PATH."
                )
    return sets
