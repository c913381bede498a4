"""A folder of captions that a language model wrote: every answer in parts, and what is left of them after filters."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synth2_lightning.files import write_atomically
from synth2_lightning.parquet import write_tables
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


_REJECTED_COLUMNS = pa.schema([*_COLUMNS, ("filter", pa.string()), ("reason", pa.string())])
_UNPACKED, _SPOOL = ".answers.arrow", ".rejected.arrow"
_ROWS_AT_A_TIME = 16_384

Rejected = tuple[CaptionRecord, str, str]
Rows = np.ndarray[Any, np.dtype[np.int64]]


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
    """Read every answer of a caption set into memory, in the order of :func:`stream_answers`.

    Raises:
        ValueError: As of :func:`stream_answers`.
    """
    return pa.concat_tables(stream_answers(folder))


def stream_answers(folder: Path) -> Iterator[pa.Table]:
    """Read every answer of a caption set, block by block, in the order of their seeds.

    Seeds are drawn from keys, so the order is random, but the same however many ranks wrote: whoever takes the first
    thousand takes a fair sample, and filters that keep the first of several keep the same ones.

    The answers are copied unpacked into a file beside the parts and mapped from there; 8 bytes of each are in memory.

    Raises:
        OSError: If the folder cannot be written to.
        ValueError: If there is no part, the parts were made with several settings, or hold a record twice.
    """
    parts = list_parts(folder)
    if not parts:
        raise ValueError(f"{folder} holds no answers; expected at least one that was written.")
    settings = read_settings(parts[0])
    for part in parts:
        refuse_other_settings(part, read_settings(part), settings)
    refuse_repeated(parts)
    copy = folder / _UNPACKED
    seeds, firsts = [], [0]
    try:
        with pa.OSFile(str(copy), "wb") as out, pa.ipc.new_file(out, _COLUMNS) as writer:
            for part in parts:
                for batch in read_part(part, _COLUMNS.names).combine_chunks().to_batches():
                    writer.write_batch(batch.cast(_COLUMNS))
                    seeds.append(batch["seed"].to_numpy())
                    firsts.append(firsts[-1] + len(batch))
        with pa.memory_map(str(copy)) as mapped:
            copy.unlink()  # what is mapped stays until it is let go
            answers = _Answers(pa.ipc.open_file(mapped), np.array(firsts))
            order = answers.sort(np.concatenate(seeds))
            for start in range(0, len(order), _ROWS_AT_A_TIME):
                yield answers.take(order[start : start + _ROWS_AT_A_TIME])
    finally:
        copy.unlink(missing_ok=True)


class _Answers:
    """Rows of a mapped file, by their numbers."""

    def __init__(self, file: pa.ipc.RecordBatchFileReader, firsts: Rows) -> None:
        self._file = file
        self._firsts = firsts

    def sort(self, seeds: Rows) -> Rows:
        """Order the rows by seed; where that is the same, by key."""
        order = np.argsort(seeds, kind="stable")
        is_tied = np.zeros(len(order) + 1, bool)
        is_tied[1:-1] = np.diff(seeds[order]) == 0
        bounds = np.flatnonzero(np.diff(is_tied.astype(np.int8)))
        for start, end in zip(bounds[::2], bounds[1::2] + 1, strict=True):
            keys = self.take(order[start:end])["key"].to_pylist()
            order[start:end] = order[start:end][sorted(range(len(keys)), key=keys.__getitem__)]
        return order

    def take(self, rows: Rows) -> pa.Table:
        """Return rows in the given order."""
        owners = np.searchsorted(self._firsts, rows, side="right") - 1
        by_owner = np.argsort(owners, kind="stable")
        numbers, starts = np.unique(owners[by_owner], return_index=True)
        pieces = [
            self._file.get_batch(int(number)).take(pa.array(rows[places] - self._firsts[number]))
            for number, places in zip(numbers, np.split(by_owner, starts[1:]), strict=True)
        ]
        table = pa.Table.from_batches(pieces, _COLUMNS).combine_chunks()
        return table.take(pa.array(np.argsort(by_owner, kind="stable")))


def finish_caption_set(
    folder: Path,
    judge: Callable[[Sequence[CaptionRecord]], tuple[Sequence[CaptionRecord], Sequence[Rejected]]],
    describe_filters: Callable[[], Sequence[Mapping[str, Any]]],
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """Write what is left of a caption set, what was rejected and why, and the manifest; once all writers have closed.

    Memory is that of a block of answers, besides what the filters keep to compare captions.

    Args:
        folder: Of the set.
        judge: Returns those of the next answers that may stay, cleaned and in their order, and the others as they were
            when they were rejected, with the filter's name and its reason.
        describe_filters: Returns what each filter did, in plain values that JSON can hold, once all answers were
            judged; ``name`` is its name.
        provenance: What made the set, for people; the settings that the parts carry are added.

    Returns:
        The manifest.

    Raises:
        OSError: If the folder cannot be written to.
        ValueError: As of :func:`stream_answers`.
    """
    remove_drafts(folder)
    totals: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    spool = folder / _SPOOL
    try:
        with pa.OSFile(str(spool), "wb") as out, pa.ipc.new_file(out, _REJECTED_COLUMNS) as leavings:

            def filter_answers() -> Iterator[pa.Table]:
                for answers in stream_answers(folder):
                    kept, rejected = judge(_list_records(answers))
                    totals.update(
                        num_written=len(answers),
                        num_kept=len(kept),
                        num_tokens=sum(answers["num_tokens"].to_pylist()),
                        num_prompt_tokens=sum(answers["num_prompt_tokens"].to_pylist()),
                    )
                    reasons.update(answers["finish_reason"].to_pylist())
                    leavings.write_table(_make_rejected(answers, rejected))
                    yield _replace_captions(answers, kept)

            write_atomically(folder / CAPTIONS, partial(write_tables, filter_answers()))
        filters = list(describe_filters())
        names = [str(entry["name"]) for entry in filters]
        with pa.memory_map(str(spool)) as mapped:
            tables = _order_by_filter(pa.ipc.open_file(mapped), names)
            write_atomically(folder / REJECTED, partial(write_tables, tables))
    finally:
        spool.unlink(missing_ok=True)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        **{name: totals[name] for name in ("num_written", "num_kept", "num_tokens", "num_prompt_tokens")},
        "finish_reasons": dict(reasons),
        "filters": filters,
        "provenance": {**provenance, "settings": read_settings(list_parts(folder)[0])},
    }
    text = json.dumps(manifest, indent=2) + "\n"
    write_atomically(folder / MANIFEST, lambda path: path.write_text(text))
    return manifest


def _list_records(answers: pa.Table) -> list[CaptionRecord]:
    columns = (answers[name].to_pylist() for name in ("key", "caption", "class_name", "finish_reason"))
    return [
        CaptionRecord(key, caption, class_name, is_cut=reason == "length")
        for key, caption, class_name, reason in zip(*columns, strict=True)
    ]


def _replace_captions(answers: pa.Table, records: Sequence[CaptionRecord]) -> pa.Table:
    rows = {key: number for number, key in enumerate(answers["key"].to_pylist())}
    table = answers.take(pa.array([rows[record.key] for record in records], pa.int64()))
    column = pa.array([record.caption for record in records], pa.string())
    return table.set_column(table.schema.get_field_index("caption"), "caption", column).replace_schema_metadata(None)


def _make_rejected(answers: pa.Table, rejected: Sequence[Rejected]) -> pa.Table:
    table = _replace_captions(answers, [record for record, _, _ in rejected])
    table = table.append_column("filter", pa.array([name for _, name, _ in rejected], pa.string()))
    return table.append_column("reason", pa.array([reason for _, _, reason in rejected], pa.string()))


def _order_by_filter(file: pa.ipc.RecordBatchFileReader, names: Sequence[str]) -> Iterator[pa.Table]:
    yield _REJECTED_COLUMNS.empty_table()
    for name in names:
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            yield pa.Table.from_batches([batch.filter(pc.equal(batch["filter"], name))])
