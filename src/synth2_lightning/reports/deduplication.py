"""A caption set without near duplicates."""

import json
from pathlib import Path

import pyarrow as pa

from synth2_lightning.files import write_atomically
from synth2_lightning.filters.duplicates import REASON_NEAR, NearDuplicates
from synth2_lightning.reports.caption_set import MANIFEST, CaptionSet
from synth2_lightning.reports.rows import leave_rows_out, part_rows, refuse_taken, take_rows, write_rows
from synth2_lightning.shards.caption_set import REJECTED
from synth2_lightning.sources.caption_files import CAPTION_SET_TABLE


def remove_near_duplicates(captions: CaptionSet, near: NearDuplicates, folder: Path) -> int:
    """Write what is left of a caption set, what was rejected and why, and a manifest.

    Args:
        captions: The set; its blank captions are left out.
        near: Says which captions are near.
        folder: Where the new set goes.

    Returns:
        How many captions are left.

    Raises:
        FileExistsError: If the folder holds a caption set already.
        OSError: If the folder cannot be written to.
    """
    refuse_taken(folder)
    name = type(near).__name__
    parts = part_rows(captions.partitions, captions.engine.find_near_duplicates(near, captions.partitions))
    num_kept = write_rows(captions.engine.map(leave_rows_out, parts), folder / CAPTION_SET_TABLE)
    rejected = (_give_reason(table, name) for table in captions.engine.map(take_rows, parts))
    num_rejected = write_rows(rejected, folder / REJECTED)
    count = {"name": name, "num_seen": len(captions), "num_changed": 0, "num_rejected": num_rejected}
    manifest = {
        "num_written": captions.census.num_rows,
        "num_blank": captions.num_blank,
        "num_kept": num_kept,
        "filtered_from": str(captions.path),
        "filters": [{**count, "num_by_reason": {REASON_NEAR: num_rejected}, "settings": near.provenance()}],
        "manifest_of_source": captions.manifest,
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / MANIFEST, lambda path: path.write_text(text, "utf-8"))
    return num_kept


def _give_reason(table: pa.Table, name: str) -> pa.Table:
    for column, text in (("filter", name), ("reason", REASON_NEAR)):
        if column in table.column_names:  # of an earlier filter
            table = table.drop_columns([column])
        table = table.append_column(column, pa.array([text] * len(table), pa.string()))
    return table
