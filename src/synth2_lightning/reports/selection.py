"""Selection of a subset of a caption set, balanced over its groups or restricted to a few of them.

Synth² (arXiv 2403.07750) finds that synthetic pairs help more if their captions are diverse and balanced. Balanced and
narrow selections of equal size from one set measure this effect.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synth2_lightning.io.atomic import write_json
from synth2_lightning.metrics.balance import Balance, measure_balance
from synth2_lightning.metrics.ngrams import Ints
from synth2_lightning.reports.caption_set import MANIFEST, CaptionSet
from synth2_lightning.reports.groups import NO_GROUP, Groups, Labels
from synth2_lightning.reports.rows import split_rows, take_rows, write_rows
from synth2_lightning.reports.sampling import Priorities, bound_priorities, compute_priorities
from synth2_lightning.shards.data_card import write_caption_card
from synth2_lightning.sources.caption_files import CAPTION_SET_TABLE

_BATCH_ROWS = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Selected rows of a caption set, and group sizes.

    Args:
        rows: Sorted row numbers.
        sizes_before: Number of captions per group in the set, largest first.
        sizes_after: Number of captions per group in the selection, in the same order.
    """

    rows: Ints
    sizes_before: dict[str, int]
    sizes_after: dict[str, int]

    @property
    def balance_before(self) -> Balance:
        """Balance of the set over groups."""
        return measure_balance(self.sizes_before.values())

    @property
    def balance_after(self) -> Balance:
        """Balance of the selection over the same groups."""
        return measure_balance(self.sizes_after.values())


def select_rows(groups: Groups, num: int, num_groups: int | None = None, seed: int = 0) -> Selection:
    """Sample captions balanced over groups; small groups are sampled completely.

    The rows with the smallest priorities of each group are selected.

    Args:
        groups: Group of each caption; the largest group is first.
        num: Number of captions to select.
        num_groups: Select from this number of largest groups; from all by default.
        seed: Seed of the sample in each group.

    Raises:
        ValueError: If there are fewer captions than ``num``, or ``num_groups`` is out of range.

    Example:
        >>> groups = Groups(["dog", "cat", "fox"], np.array([0] * 5 + [1] * 2 + [2], np.int32))
        >>> select_rows(groups, num=5).sizes_after
        {'dog': 2, 'cat': 2, 'fox': 1}
        >>> select_rows(groups, num=4, num_groups=1).sizes_after
        {'dog': 4, 'cat': 0, 'fox': 0}
    """
    sizes = groups.sizes
    num_filled = sum(size > 0 for size in sizes)
    if num_groups is not None and not 1 <= num_groups <= num_filled:
        raise ValueError(f"{num_groups} of {num_filled} groups were requested; expected 1 to {num_filled}.")
    allowed = sizes[: num_filled if num_groups is None else num_groups]
    if not 1 <= num <= sum(allowed):
        raise ValueError(
            f"{num} captions were requested, but {len(allowed)} groups have {sum(allowed)}; expected 1 to "
            f"{sum(allowed)}. Select fewer captions, or allow more groups."
        )
    quotas = [*fill_groups(allowed, num), *[0] * (len(sizes) - len(allowed))]
    before = {name: size for name, size in zip(groups.names, sizes, strict=True) if size}
    after = dict(zip(before, quotas, strict=False))
    return Selection(_sample_rows(groups, quotas, seed), before, after)


def _sample_rows(groups: Groups, quotas: Sequence[int], seed: int) -> Ints:
    factor = 1
    while True:
        rows, priorities, labels = _find_candidates(groups, quotas, seed, factor)
        order = np.lexsort((priorities, labels))
        rows, labels = rows[order], labels[order]
        ranks = np.arange(len(rows)) - np.searchsorted(labels, labels)  # in the group
        is_selected = ranks < np.asarray(quotas)[labels]
        if is_selected.sum() == sum(quotas):
            return np.sort(rows[is_selected])
        factor *= 2


def _find_candidates(groups: Groups, quotas: Sequence[int], seed: int, factor: int) -> tuple[Ints, Priorities, Labels]:
    """Return rows with small priorities, which limits memory and sorting, with their priorities and groups."""
    bounds = np.asarray(
        [bound_priorities(quota, size, factor) for quota, size in zip(quotas, groups.sizes, strict=True)], np.uint64
    )
    found = []
    for start in range(0, len(groups.labels), _BATCH_ROWS):
        labels = groups.labels[start : start + _BATCH_ROWS]
        priorities = compute_priorities(start, len(labels), seed)
        offsets = np.flatnonzero((labels != NO_GROUP) & (priorities <= bounds[labels]))
        found.append((offsets + start, priorities[offsets], labels[offsets]))
    rows, found_priorities, found_labels = zip(*found, strict=True)
    return np.concatenate(rows), np.concatenate(found_priorities), np.concatenate(found_labels)


def fill_groups(sizes: Sequence[int], num: int) -> list[int]:
    """Divide a number over groups by max-min fairness: equally, but at most the size of each group.

    Args:
        sizes: Group sizes, with a sum of at least ``num``.
        num: Number to divide.

    Returns:
        The quota of each group; quotas below the group size differ by at most one.

    Example:
        >>> fill_groups([10, 1, 10], 8)
        [4, 1, 3]
    """
    quotas = [0] * len(sizes)
    ascending = sorted(range(len(sizes)), key=lambda group: (sizes[group], -group))
    for position, group in enumerate(ascending):
        quotas[group] = min(sizes[group], num // (len(sizes) - position))
        num -= quotas[group]
    return quotas


def write_selection(captions: CaptionSet, selection: Selection, settings: dict[str, Any], folder: Path) -> None:
    """Write a selection as a caption set: unmodified rows in their order, and a manifest with the settings.

    Raises:
        OSError: If the folder cannot be written to.
    """
    groups = [
        {"name": name, "num_before": size, "num_after": selection.sizes_after[name]}
        for name, size in selection.sizes_before.items()
    ]
    manifest = {
        "num_kept": len(selection.rows),
        "selected_from": str(captions.path),
        "selected_by": settings,
        "balance_before": asdict(selection.balance_before),
        "balance_after": asdict(selection.balance_after),
        "groups": groups,
        "manifest_of_source": captions.manifest,
    }
    parts = [part for part in split_rows(captions.partitions, selection.rows) if len(part[1])]
    write_rows(captions.engine.map(take_rows, parts), folder / CAPTION_SET_TABLE)
    write_caption_card(folder, {"default": CAPTION_SET_TABLE}, manifest)
    write_json(folder / MANIFEST, manifest)
