"""Removal of near duplicates from a caption set."""

from pathlib import Path

import pyarrow as pa
from rich.console import Console

from synth2_lightning.filters.duplicates import REASON_NEAR, NearDuplicates
from synth2_lightning.io.atomic import write_json
from synth2_lightning.io.console import MessageConsole
from synth2_lightning.io.locks import lock_folder
from synth2_lightning.reports.caption_set import MANIFEST, read_caption_set
from synth2_lightning.reports.engine import CaptionEngine
from synth2_lightning.reports.rows import check_no_caption_set, drop_rows, split_rows, take_rows, write_rows
from synth2_lightning.shards.caption_set import REJECTED
from synth2_lightning.shards.data_card import write_caption_card
from synth2_lightning.sources.caption_files import CAPTION_SET_TABLE


def deduplicate(
    location: str,
    folder: Path,
    near: NearDuplicates,
    console: Console | None = None,
    engine: CaptionEngine | None = None,
) -> None:
    """Write a caption set without near duplicates and blank captions, the rejected captions, and a manifest.

    The set is given as for :func:`read_caption_set`. The engine processes it; by default it is processed in this
    process.

    Raises:
        OSError: If the folder cannot be written to.
    """
    with lock_folder(folder):
        check_no_caption_set(folder)
        captions = read_caption_set(location, engine)
        name = type(near).__name__
        parts = split_rows(captions.partitions, captions.engine.find_near_duplicates(near, captions.partitions))
        num_kept = write_rows(captions.engine.map(drop_rows, parts), folder / CAPTION_SET_TABLE)
        rejected = (_give_reason(table, name) for table in captions.engine.map(take_rows, parts))
        num_rejected = write_rows(rejected, folder / REJECTED)
        count = {"name": name, "num_seen": len(captions), "num_changed": 0, "num_rejected": num_rejected}
        manifest = {
            "num_written": captions.counts.num_rows,
            "num_blank": captions.num_blank,
            "num_kept": num_kept,
            "filtered_from": str(captions.path),
            "filters": [{**count, "num_by_reason": {REASON_NEAR: num_rejected}, "settings": near.provenance()}],
            "manifest_of_source": captions.manifest,
        }
        write_caption_card(folder, {"default": CAPTION_SET_TABLE, "rejected": REJECTED}, manifest)
        write_json(folder / MANIFEST, manifest)
    (console or MessageConsole()).print(
        f"{num_kept:,d} of {len(captions):,d} captions are in {folder}; the others are near duplicates of these.",
        soft_wrap=True,
    )


def _give_reason(table: pa.Table, name: str) -> pa.Table:
    for column, text in (("filter", name), ("reason", REASON_NEAR)):
        if column in table.column_names:  # from an earlier filter
            table = table.drop_columns([column])
        table = table.append_column(column, pa.array([text] * len(table), pa.string()))
    return table
