"""A part of a caption set, as even over its groups as can be, or narrowed to a few of them.

Synth² (arXiv 2403.07750) finds that diversity and balance of captions decide how much synthetic pairs help; selections
of equal size from one set, one even and one narrow, put that to the test.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synth2_lightning.files import write_atomically
from synth2_lightning.metrics.balance import Balance, measure_balance
from synth2_lightning.metrics.ngrams import Ints
from synth2_lightning.reports.caption_set import MANIFEST, CaptionSet
from synth2_lightning.reports.groups import NO_GROUP, Groups, Labels
from synth2_lightning.reports.rows import part_rows, refuse_taken, take_rows, write_rows
from synth2_lightning.reports.sampling import Priorities, bound_priorities, draw_priorities
from synth2_lightning.sources.caption_files import CAPTION_SET_TABLE

_ROWS_AT_A_TIME = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Rows of a caption set, and how they are spread.

    Args:
        rows: Their numbers, ascending.
        sizes_before: Captions of every group in the set, largest first.
        sizes_after: Captions of every group in the selection, in the same order.

    Example:
        >>> groups = Groups(["dog", "cat", "fox"], np.array([0] * 5 + [1] * 2 + [2], np.int32))
        >>> select_rows(groups, num=5).sizes_after
        {'dog': 2, 'cat': 2, 'fox': 1}
    """

    rows: Ints
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


def select_rows(groups: Groups, num: int, num_groups: int | None = None, seed: int = 0) -> Selection:
    """Draw captions, equally many of each group as far as groups have members.

    Of each group, the rows with the smallest priorities are drawn.

    Args:
        groups: Group of every caption, the largest group first.
        num: How many to draw.
        num_groups: Draw from the largest groups only; from all if ``None``.
        seed: Decides which members of a group are drawn.

    Raises:
        ValueError: If there are fewer captions than asked, or other than so many groups.

    Example:
        >>> groups = Groups(["dog", "cat", "fox"], np.array([0] * 5 + [1] * 2 + [2], np.int32))
        >>> select_rows(groups, num=4, num_groups=1).sizes_after
        {'dog': 4, 'cat': 0, 'fox': 0}
    """
    sizes = groups.sizes
    num_filled = sum(size > 0 for size in sizes)
    if num_groups is not None and not 1 <= num_groups <= num_filled:
        raise ValueError(f"{num_groups} of {num_filled} groups were asked for; expected from 1 to {num_filled}.")
    allowed = sizes[: num_filled if num_groups is None else num_groups]
    if not 1 <= num <= sum(allowed):
        raise ValueError(
            f"{num} captions were asked for, and {len(allowed)} groups hold {sum(allowed)}; expected from 1 to "
            f"{sum(allowed)}. Ask for fewer captions, allow more groups, or give a larger set."
        )
    quotas = [*fill_groups(allowed, num), *[0] * (len(sizes) - len(allowed))]
    before = {name: size for name, size in zip(groups.names, sizes, strict=True) if size}
    after = dict(zip(before, quotas, strict=False))
    return Selection(_draw_rows(groups, quotas, seed), before, after)


def _draw_rows(groups: Groups, quotas: Sequence[int], seed: int) -> Ints:
    factor = 1
    while True:
        rows, priorities, labels = _find_candidates(groups, quotas, seed, factor)
        order = np.lexsort((priorities, labels))
        rows, labels = rows[order], labels[order]
        ranks = np.arange(len(rows)) - np.searchsorted(labels, labels)  # within the group
        is_drawn = ranks < np.asarray(quotas)[labels]
        if is_drawn.sum() == sum(quotas):
            return np.sort(rows[is_drawn])
        factor *= 2


def _find_candidates(groups: Groups, quotas: Sequence[int], seed: int, factor: int) -> tuple[Ints, Priorities, Labels]:
    """Rows with small priorities, so that not those of all rows need be held and sorted."""
    bounds = np.asarray(
        [bound_priorities(quota, size, factor) for quota, size in zip(quotas, groups.sizes, strict=True)], np.uint64
    )
    found = []
    for start in range(0, len(groups.labels), _ROWS_AT_A_TIME):
        labels = groups.labels[start : start + _ROWS_AT_A_TIME]
        priorities = draw_priorities(start, len(labels), seed)
        places = np.flatnonzero((labels != NO_GROUP) & (priorities <= bounds[labels]))
        found.append((places + start, priorities[places], labels[places]))
    rows, drawn, groups_of = zip(*found, strict=True)
    return np.concatenate(rows), np.concatenate(drawn), np.concatenate(groups_of)


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
    parts = [part for part in part_rows(captions.partitions, selection.rows) if len(part[1])]
    write_rows(captions.engine.map(take_rows, parts), folder / CAPTION_SET_TABLE)
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / MANIFEST, lambda path: path.write_text(text, "utf-8"))
