"""What ``synth2 report``, ``synth2 select`` and ``synth2 deduplicate`` do."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from synth2_lightning.console import MessageConsole
from synth2_lightning.files import lock_folder
from synth2_lightning.filters.duplicates import NearDuplicates
from synth2_lightning.interfaces import TextEncoder
from synth2_lightning.reports.caption_set import read_caption_set, read_caption_sets
from synth2_lightning.reports.comparison import compare_sets
from synth2_lightning.reports.deduplication import remove_near_duplicates
from synth2_lightning.reports.engine import CaptionEngine
from synth2_lightning.reports.groups import group_by_class, group_by_cluster
from synth2_lightning.reports.measures import list_measures
from synth2_lightning.reports.page import write_report
from synth2_lightning.reports.rows import refuse_taken
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
    """Compare caption sets, show their figures, and write the report.

    Args:
        locations: Of the sets, as :func:`read_caption_set` takes them.
        folder: Where the report goes.
        encoder: Any sentence encoder.
        num_clusters: The paper's k is 20.
        sample: Captions of each set to compare by, at most.
        seed: Decides samples and clusters.
        evaluation: Location of captions that should not be in the sets.
        console: Where to tell of it.
        engine: Goes through the set; this process if ``None``.
    """
    console = console or MessageConsole()
    with lock_folder(folder):
        sets = read_caption_sets(locations, engine)
        forbidden = read_caption_set(evaluation).captions if evaluation is not None else []
        comparison = compare_sets(sets, encoder, num_clusters, sample, seed, forbidden, console)
        table = Table("figure", box=None)
        for one in comparison.sets:
            table.add_column(Text(one.captions.name), justify="right")
        for measure in list_measures(comparison.sets):
            table.add_row(measure.label, *(measure.write(one) for one in comparison.sets))
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
    """Select a part of a caption set that is even over its classes, or over the largest of them.

    Args:
        location: Of the set, as :func:`read_caption_set` takes it.
        folder: Where the selection goes.
        num: How many captions.
        num_groups: Of the largest classes only; of all if ``None``.
        seed: Decides which captions of a class.
        console: Where to tell of it.
        engine: Goes through the set; this process if ``None``.
    """
    with lock_folder(folder):
        refuse_taken(folder)
        captions = read_caption_set(location, engine)
        selection = select_rows(group_by_class(captions), num, num_groups, seed)
        write_selection(captions, selection, {"groups": "class", "num_groups": num_groups, "seed": seed}, folder)
    _show(selection, folder, console or MessageConsole())


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
    """Select a part of a caption set that is even over clusters of its embeddings, or over the largest of them.

    Args:
        location: Of the set, as :func:`read_caption_set` takes it.
        folder: Where the selection goes.
        num: How many captions.
        encoder: Any sentence encoder.
        num_clusters: Number of clusters.
        num_groups: Of the largest clusters only; of all if ``None``.
        seed: Decides the clusters, and which captions of each.
        console: Where to tell of it.
        engine: Goes through the set; this process if ``None``.
    """
    console = console or MessageConsole()
    with lock_folder(folder):
        refuse_taken(folder)
        captions = read_caption_set(location, engine)
        groups = group_by_cluster(captions, encoder, num_clusters, seed, console)
        selection = select_rows(groups, num, num_groups, seed)
        how = {
            "groups": "clusters",
            "num_clusters": num_clusters,
            "encoder": encoder.name,
            "num_groups": num_groups,
            "seed": seed,
        }
        write_selection(captions, selection, how, folder)
    _show(selection, folder, console)


def deduplicate(
    location: str,
    folder: Path,
    near: NearDuplicates,
    console: Console | None = None,
    engine: CaptionEngine | None = None,
) -> None:
    """Write a caption set without those captions that say nearly the same as an earlier one.

    Args:
        location: Of the set, as :func:`read_caption_set` takes it.
        folder: Where the new set goes.
        near: Says which captions are near.
        console: Where to tell of it.
        engine: Goes through the set; this process if ``None``.
    """
    with lock_folder(folder):
        refuse_taken(folder)
        captions = read_caption_set(location, engine)
        num_kept = remove_near_duplicates(captions, near, folder)
    (console or MessageConsole()).print(
        f"{num_kept:,d} of {len(captions):,d} captions are in {folder}; the others say nearly the same as one of them.",
        soft_wrap=True,
    )


def _show(selection: Selection, folder: Path, console: Console) -> None:
    table = Table("", "before", "after", box=None)
    before, after = selection.balance_before, selection.balance_after
    table.add_row("captions", f"{sum(selection.sizes_before.values()):,d}", f"{len(selection.rows):,d}")
    num_filled = sum(size > 0 for size in selection.sizes_after.values())
    table.add_row("groups", f"{before.num_groups:,d}", f"{num_filled:,d}")
    table.add_row("entropy in bits", f"{before.entropy:.2f}", f"{after.entropy:.2f}")
    table.add_row("top-5 share", f"{before.top_five_share:.1%}", f"{after.top_five_share:.1%}")
    console.print(table)
    console.print(f"The selection is in {folder}", soft_wrap=True)
