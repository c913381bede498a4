"""Removal of near duplicates from a caption set."""

from pathlib import Path

import pyarrow as pa

from synth2_lightning.filters.duplicates import REASON_NEAR, NearDuplicates
from synth2_lightning.io.atomic import write_json
from synth2_lightning.reports.caption_set import MANIFEST, CaptionSet
from synth2_lightning.reports.rows import drop_rows, split_rows, take_rows, write_rows
from synth2_lightning.shards.caption_set import REJECTED
from synth2_lightning.shards.data_card import write_caption_card
from synth2_lightning.sources.caption_files import CAPTION_SET_TABLE


def remove_near_duplicates(captions: CaptionSet, near: NearDuplicates, folder: Path) -> int:
    """Write a caption set without near duplicates and blank captions, the rejected captions, and a manifest.

    Returns:
        The number of kept captions.

    Raises:
        OSError: If the folder cannot be written to.
    """
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
    return num_kept


def _give_reason(table: pa.Table, name: str) -> pa.Table:
    for column, text in (("filter", name), ("reason", REASON_NEAR)):
        if column in table.column_names:  # from an earlier filter
            table = table.drop_columns([column])
        table = table.append_column(column, pa.array([text] * len(table), pa.string()))
    return table
