"""A part of a caption set, as even over its groups as can be, or narrowed to a few of them.

Synth² (arXiv 2403.07750) finds that diversity and balance of captions decide how much synthetic pairs help; selections
of equal size from one set, one even and one narrow, put that to the test.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from synth2_lightning.metrics.balance import Balance, measure_balance
from synth2_lightning.parquet import write_parquet
from synth2_lightning.reports.caption_set import MANIFEST, CaptionSet
from synth2_lightning.shards.files import write_atomically
from synth2_lightning.sources.caption_files import CAPTION_SET_TABLE


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows of a caption set, and how they are spread.

    Args:
        rows: Their numbers, ascending.
        sizes_before: Captions of every group in the set, largest first.
        sizes_after: Captions of every group in the selection, in the same order.

    Example:
        >>> select_rows(["dog"] * 5 + ["cat"] * 2 + ["fox"], num=5).sizes_after
        {'dog': 2, 'cat': 2, 'fox': 1}
    """

    rows: list[int]
    sizes_before: dict[str, int]
    sizes_after: dict[str, int]

    @property
    def balance_before(self) -> Balance:
        """How even the set is."""
        return measure_balance(self.sizes_before.values())

    @property
    def balance_after(self) -> Balance:
        """How even the selection is, over the same groups."""
        return measure_balance(self.sizes_after.values())


def select_rows(groups: Sequence[str], num: int, num_groups: int | None = None, seed: int = 0) -> Selection:
    """Draw captions, equally many of each group as far as groups have members.

    Args:
        groups: Group of every caption.
        num: How many to draw.
        num_groups: Draw from the largest groups only; from all if ``None``.
        seed: Decides which members of a group are drawn.

    Raises:
        ValueError: If there are fewer captions than asked, or other than so many groups.

    Example:
        >>> select_rows(["dog"] * 5 + ["cat"] * 2 + ["fox"], num=4, num_groups=1).sizes_after
        {'dog': 4, 'cat': 0, 'fox': 0}
    """
    before = dict(Counter(groups).most_common())
    names = list(before)[:num_groups]
    if num_groups is not None and not 1 <= num_groups <= len(before):
        raise ValueError(f"{num_groups} of {len(before)} groups were asked for; expected from 1 to {len(before)}.")
    num_there = sum(before[name] for name in names)
    if not 1 <= num <= num_there:
        raise ValueError(
            f"{num} captions were asked for, and {len(names)} groups hold {num_there}; expected from 1 to {num_there}. "
            "Ask for fewer captions, allow more groups, or give a larger set."
        )
    quotas = dict(zip(names, fill_groups([before[name] for name in names], num), strict=True))
    left = dict(quotas)
    rows = []
    for row in np.random.default_rng(seed).permutation(len(groups)).tolist():
        if left.get(groups[row], 0):
            left[groups[row]] -= 1
            rows.append(row)
    return Selection(sorted(rows), before, {name: quotas.get(name, 0) for name in before})


def fill_groups(sizes: Sequence[int], num: int) -> list[int]:
    """Spread a number over groups as water does over basins: equally, but no group gets more than its size.

    Args:
        sizes: Of the groups; together at least ``num``.
        num: What to spread.

    Returns:
        The share of every group; those that are not full differ by one at most.

    Example:
        >>> fill_groups([10, 1, 10], 8)
        [4, 1, 3]
    """
    shares = [0] * len(sizes)
    ascending = sorted(range(len(sizes)), key=lambda group: (sizes[group], -group))
    for position, group in enumerate(ascending):
        shares[group] = min(sizes[group], num // (len(sizes) - position))
        num -= shares[group]
    return shares


def refuse_taken(folder: Path) -> None:
    """Refuse a folder that holds a caption set, lest it be lost; asked before minutes are spent on embeddings.

    Raises:
        FileExistsError: If the folder holds a caption set already.
    """
    if (folder / CAPTION_SET_TABLE).exists():
        raise FileExistsError(f"{folder} holds a caption set already; expected a folder without one. Choose another.")


def write_selection(captions: CaptionSet, selection: Selection, how: dict[str, Any], folder: Path) -> None:
    """Write a selection as a caption set: its rows as they were, in their order, and a manifest.

    Args:
        captions: The set that was selected from.
        selection: Which rows.
        how: How they were selected, in plain values that JSON can hold.
        folder: Where the set goes.

    Raises:
        FileExistsError: If the folder holds a caption set already.
        OSError: If the folder cannot be written to.
    """
    refuse_taken(folder)
    groups = [
        {"name": name, "num_before": size, "num_after": selection.sizes_after[name]}
        for name, size in selection.sizes_before.items()
    ]
    manifest = {
        "num_kept": len(selection.rows),
        "selected_from": str(captions.path),
        "selected_by": how,
        "balance_before": asdict(selection.balance_before),
        "balance_after": asdict(selection.balance_after),
        "groups": groups,
        "manifest_of_source": captions.manifest,
    }
    rows = captions.rows.take(pa.array(selection.rows, pa.int64()))
    write_atomically(folder / CAPTION_SET_TABLE, partial(write_parquet, rows))
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / MANIFEST, lambda path: path.write_text(text, "utf-8"))
