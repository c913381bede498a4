"""Implementation of ``synth2 report`` and ``synth2 select``."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from synth2_lightning.interfaces import TextEncoder
from synth2_lightning.io.console import MessageConsole
from synth2_lightning.io.locks import lock_folder
from synth2_lightning.reports.caption_set import read_caption_set, read_caption_sets
from synth2_lightning.reports.comparison import compare_sets
from synth2_lightning.reports.engine import CaptionEngine
from synth2_lightning.reports.groups import group_by_class, group_by_cluster
from synth2_lightning.reports.measures import tabulate
from synth2_lightning.reports.page import write_report
from synth2_lightning.reports.rows import check_no_caption_set
from synth2_lightning.reports.selection import Selection, select_rows, write_selection


def report_on_sets(
    locations: Sequence[str],
    folder: Path,
    encoder: TextEncoder,
    num_clusters: int = 20,
    sample: int = 5000,
    seed: int = 0,
    evaluation: str | None = None,
    console: Console | None = None,
    engine: CaptionEngine | None = None,
) -> None:
    """Compare caption sets, print a table of measures, and write the report to a folder.

    Sets are given as for :func:`read_caption_set`; the other arguments are those of :func:`compare_sets`. The engine
    processes the sets; by default they are processed in this process.
    """
    console = console or MessageConsole()
    _check_seed(seed)
    with lock_folder(folder):
        sets = read_caption_sets(locations, engine)
        evaluation_captions = read_caption_set(evaluation).captions if evaluation is not None else []
        comparison = compare_sets(sets, encoder, num_clusters, sample, seed, evaluation_captions, console)
        table = Table("measure", box=None)
        for one in comparison.sets:
            table.add_column(Text(one.captions.name), justify="right")
        for measure, values in tabulate(comparison.sets):
            table.add_row(measure.label, *values)
        console.print(table)
        console.print(f"The report is at {write_report(comparison, folder)}", soft_wrap=True)


def select_by_class(
    location: str,
    folder: Path,
    num: int,
    num_groups: int | None = None,
    seed: int = 0,
    console: Console | None = None,
    engine: CaptionEngine | None = None,
) -> None:
    """Select a subset of a caption set, balanced over all classes or the largest ones, and write it to a folder.

    The set is given as for :func:`read_caption_set`; ``num``, ``num_groups`` and ``seed`` are those of
    :func:`select_rows`. The engine processes the set; by default it is processed in this process.
    """
    _check_seed(seed)
    with lock_folder(folder):
        check_no_caption_set(folder)
        captions = read_caption_set(location, engine)
        selection = select_rows(group_by_class(captions), num, num_groups, seed)
        write_selection(captions, selection, {"groups": "class", "num_groups": num_groups, "seed": seed}, folder)
    _print_balance(selection, folder, console or MessageConsole())


def select_by_cluster(
    location: str,
    folder: Path,
    num: int,
    encoder: TextEncoder,
    num_clusters: int = 20,
    num_groups: int | None = None,
    seed: int = 0,
    console: Console | None = None,
    engine: CaptionEngine | None = None,
) -> None:
    """Select a subset of a caption set, balanced over all clusters of its embeddings or the largest ones.

    The arguments are those of :func:`select_by_class`, and encoder, number and seed of the clusters.
    """
    console = console or MessageConsole()
    _check_seed(seed)
    with lock_folder(folder):
        check_no_caption_set(folder)
        captions = read_caption_set(location, engine)
        groups = group_by_cluster(captions, encoder, num_clusters, seed, console)
        selection = select_rows(groups, num, num_groups, seed)
        clusters = {"groups": "clusters", "num_clusters": num_clusters, "encoder": encoder.name}
        write_selection(captions, selection, {**clusters, "num_groups": num_groups, "seed": seed}, folder)
    _print_balance(selection, folder, console)


def _print_balance(selection: Selection, folder: Path, console: Console) -> None:
    table = Table("", "before", "after", box=None)
    before, after = selection.balance_before, selection.balance_after
    table.add_row("captions", f"{sum(selection.sizes_before.values()):,d}", f"{len(selection.rows):,d}")
    num_filled = sum(size > 0 for size in selection.sizes_after.values())
    table.add_row("groups", f"{before.num_groups:,d}", f"{num_filled:,d}")
    table.add_row("entropy in bits", f"{before.entropy:.2f}", f"{after.entropy:.2f}")
    table.add_row("top-5 fraction", f"{before.top_five_fraction:.1%}", f"{after.top_five_fraction:.1%}")
    console.print(table)
    console.print(f"The selection is in {folder}", soft_wrap=True)


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ValueError(f"The seed is {seed}; expected 0 or more (--seed).")
