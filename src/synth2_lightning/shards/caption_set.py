"""A folder of captions that a language model wrote: every answer in parts, and what is left of them after filters."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from synth2_lightning.files import write_atomically
from synth2_lightning.parquet import write_parquet
from synth2_lightning.shards.part_writer import PartWriter
from synth2_lightning.shards.parts import (
    describe_settings,
    list_parts,
    read_part,
    read_settings,
    refuse_repeated,
    remove_drafts,
)
from synth2_lightning.shards.settings import refuse_other_settings
from synth2_lightning.types import CaptionRecord, WrittenCaptions

CAPTIONS = "captions.parquet"
REJECTED = "rejected.parquet"
MANIFEST = "manifest.json"
SCHEMA_VERSION = 1

_COLUMNS = pa.schema(
    [
        ("key", pa.string()),
        ("source", pa.string()),
        ("class_name", pa.string()),
        ("caption", pa.string()),
        ("prompt", pa.string()),
        ("model", pa.string()),
        ("seed", pa.int64()),
        ("num_prompt_tokens", pa.int32()),
        ("num_tokens", pa.int32()),
        ("finish_reason", pa.string()),
    ]
)


class _Row(NamedTuple):
    key: str
    source: str
    class_name: str
    caption: str
    prompt: str
    model: str
    seed: int
    num_prompt_tokens: int
    num_tokens: int
    finish_reason: str


class CaptionSetWriter(PartWriter[_Row]):
    """Appends answers to a caption set, as they came; those that it holds already are not written twice.

    Several ranks may write to one folder at once. When all of them have closed, one reads the answers, filters them and
    calls :func:`finish_caption_set`. Arguments as of :class:`PartWriter`.

    Example:
        >>> import tempfile
        >>> from synth2_lightning.types import ChatMessage, Completion, PromptBatch
        >>> prompts = ((ChatMessage("user", "dog"),),)
        >>> batch = PromptBatch(prompts, ("dog-0",), ("pets",), ("dog",), ("class-based@1",), (1234,))
        >>> writer = CaptionSetWriter(Path(tempfile.mkdtemp()))
        >>> writer.append(WrittenCaptions(batch, (Completion("A dog runs.", "stop", 80, 5),), "smollm2"))
        1
        >>> writer.close()
        >>> read_answers(writer.folder)["caption"].to_pylist()
        ['A dog runs.']
    """

    summaries = (MANIFEST, CAPTIONS, REJECTED)

    def append(self, written: WrittenCaptions) -> int:
        """Add those answers that are not there yet, and return how many those are."""
        batch = written.batch
        columns = (batch.keys, batch.sources, batch.class_names, batch.templates, batch.seeds, written.completions)
        return self.add(
            _Row(
                key=key,
                source=source,
                class_name=class_name,
                caption=completion.text,
                prompt=template,
                model=written.model,
                seed=seed,
                num_prompt_tokens=completion.num_prompt_tokens,
                num_tokens=completion.num_tokens,
                finish_reason=completion.finish_reason,
            )
            for key, source, class_name, template, seed, completion in zip(*columns, strict=True)
        )

    def make_table(self, rows: Sequence[_Row], settings: Mapping[str, Any]) -> pa.Table:
        """Make a part of answers."""
        columns = dict(zip(_Row._fields, zip(*rows, strict=True), strict=True))
        return pa.table(columns, schema=_COLUMNS.with_metadata(describe_settings(settings)))


def read_answers(folder: Path) -> pa.Table:
    """Read every answer of a caption set, in the order of their seeds.

    Seeds are drawn from keys, so the order is random, but the same however many ranks wrote: whoever takes the first
    thousand takes a fair sample, and filters that keep the first of several keep the same ones.

    Raises:
        ValueError: If there is no part, or the parts were made with several settings.
    """
    parts = list_parts(folder)
    if not parts:
        raise ValueError(f"{folder} holds no answers; expected at least one that was written.")
    settings = read_settings(parts[0])
    for part in parts:
        refuse_other_settings(part, read_settings(part), settings)
    refuse_repeated(parts)
    table = pa.concat_tables([read_part(part) for part in parts])
    return table.sort_by([("seed", "ascending"), ("key", "ascending")])


def finish_caption_set(
    folder: Path,
    answers: pa.Table,
    kept: Sequence[CaptionRecord],
    rejected: Sequence[tuple[CaptionRecord, str, str]],
    filters: Sequence[Mapping[str, Any]],
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """Write what is left of a caption set, what was rejected and why, and the manifest; once all writers have closed.

    Args:
        folder: Of the set.
        answers: As :func:`read_answers` gave them.
        kept: Those that may stay, cleaned, in the order of the answers.
        rejected: The others as they were when they were rejected, with the filter's name and its reason.
        filters: What each filter did, in plain values that JSON can hold.
        provenance: What made the set, for people; the settings that the parts carry are added.

    Returns:
        The manifest.

    Raises:
        OSError: If the folder cannot be written to.
    """
    remove_drafts(folder)
    rows = {key: number for number, key in enumerate(answers["key"].to_pylist())}
    captions = _replace_captions(answers, rows, kept)
    leavings = _replace_captions(answers, rows, [record for record, _, _ in rejected])
    leavings = leavings.append_column("filter", pa.array([name for _, name, _ in rejected], pa.string()))
    leavings = leavings.append_column("reason", pa.array([reason for _, _, reason in rejected], pa.string()))
    for name, table in ((CAPTIONS, captions), (REJECTED, leavings)):
        write_atomically(folder / name, partial(write_parquet, table))
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "num_written": len(answers),
        "num_kept": len(kept),
        "num_tokens": sum(answers["num_tokens"].to_pylist()),
        "num_prompt_tokens": sum(answers["num_prompt_tokens"].to_pylist()),
        "finish_reasons": _count(answers["finish_reason"]),
        "filters": list(filters),
        "provenance": {**provenance, "settings": read_settings(list_parts(folder)[0])},
    }
    text = json.dumps(manifest, indent=2) + "\n"
    write_atomically(folder / MANIFEST, lambda path: path.write_text(text))
    return manifest


def _replace_captions(answers: pa.Table, rows: Mapping[str, int], records: Sequence[CaptionRecord]) -> pa.Table:
    table = answers.take(pa.array([rows[record.key] for record in records], pa.int64()))
    column = pa.array([record.caption for record in records], pa.string())
    return table.set_column(table.schema.get_field_index("caption"), "caption", column).replace_schema_metadata(None)


def _count(column: pa.ChunkedArray) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in column.value_counts().to_pylist()}
