"""Caption sets: a folder with the completions of a language model in parts, and the captions that pass the filters."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from synth2_lightning.io.atomic import write_atomically
from synth2_lightning.io.parquet import write_tables
from synth2_lightning.shards.data_card import CARD, write_caption_card
from synth2_lightning.shards.part_writer import PartWriter
from synth2_lightning.shards.parts import (
    check_no_repeated,
    describe_settings,
    list_parts,
    read_part,
    read_settings,
    remove_drafts,
)
from synth2_lightning.shards.settings import check_same_settings
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
Rows = NDArray[np.int64]


class _Row(NamedTuple):
    key: str
    source: str
    class_name: str
    caption: str
    prompt: str
    model: str
    seed: int | None
    num_prompt_tokens: int
    num_tokens: int
    finish_reason: str


class CaptionSetWriter(PartWriter[_Row]):
    """Appends unfiltered completions to a caption set; records that the folder has already are ignored.

    Several ranks may write to one folder at the same time. After all of them have closed, one rank calls
    :func:`finish_caption_set`. The arguments are those of :class:`PartWriter`.

    Example:
        >>> import tempfile
        >>> from synth2_lightning.types import ChatMessage, Completion, PromptBatch, SampleInfo
        >>> prompts = ((ChatMessage("user", "dog"),),)
        >>> batch = PromptBatch(prompts, (SampleInfo("dog-0", "pets", "dog", 1234),), ("class-based@1",))
        >>> writer = CaptionSetWriter(Path(tempfile.mkdtemp()))
        >>> writer.append(WrittenCaptions(batch, (Completion("A dog runs.", "stop", 80, 5),), "smollm2"))
        1
        >>> writer.close()
        >>> [answers["caption"].to_pylist() for answers in stream_answers(writer.folder)]
        [['A dog runs.']]
    """

    summaries = (MANIFEST, CAPTIONS, REJECTED, CARD)

    def append(self, written: WrittenCaptions) -> int:
        """Append the completions that are new, and return their number."""
        columns = (written.batch.samples, written.batch.templates, written.completions)
        return self.add(
            _Row(
                key=sample.key,
                source=sample.source,
                class_name=sample.class_name,
                caption=completion.text,
                prompt=template,
                model=written.model,
                seed=sample.seed,
                num_prompt_tokens=completion.num_prompt_tokens,
                num_tokens=completion.num_tokens,
                finish_reason=completion.finish_reason,
            )
            for sample, template, completion in zip(*columns, strict=True)
        )

    def make_table(self, rows: Sequence[_Row], settings: Mapping[str, object]) -> pa.Table:
        """Return the table of a part."""
        columns = dict(zip(_Row._fields, zip(*rows, strict=True), strict=True))
        return pa.table(columns, schema=_COLUMNS.with_metadata(describe_settings(settings)))


def stream_answers(folder: Path) -> Iterator[pa.Table]:
    """Yield all completions of a caption set in blocks, in the order of their seeds.

    Seeds are hashes of keys, so the order is random but independent of the number of ranks: the first records are a
    random sample, and filters that keep the first of similar captions are reproducible.

    The completions are copied uncompressed to a memory-mapped file in the folder; memory holds 8 bytes per record.

    Raises:
        OSError: If the folder cannot be written to.
        ValueError: If there is no part, the settings of the parts differ, or a record is repeated.
    """
    parts = list_parts(folder)
    if not parts:
        raise ValueError(f"{folder} has no answers; expected at least one part file.")
    settings = read_settings(parts[0])
    for part in parts:
        check_same_settings(part, read_settings(part), settings)
    check_no_repeated(parts)
    copy = folder / _UNPACKED
    copy.unlink(missing_ok=True)  # of a killed run, or a link in a downloaded folder
    seeds, firsts = [], [0]
    try:
        with pa.OSFile(str(copy), "wb") as out, pa.ipc.new_file(out, _COLUMNS) as writer:
            for part in parts:
                for batch in read_part(part, _COLUMNS.names).combine_chunks().to_batches():
                    writer.write_batch(batch.cast(_COLUMNS))
                    seeds.append(batch["seed"].to_numpy())
                    firsts.append(firsts[-1] + len(batch))
        with pa.memory_map(str(copy)) as mapped:
            copy.unlink()  # the mapping remains valid until it is closed
            answers = _Answers(pa.ipc.open_file(mapped), np.array(firsts))
            order = answers.sort(np.concatenate(seeds))
            for start in range(0, len(order), _ROWS_AT_A_TIME):
                yield answers.take(order[start : start + _ROWS_AT_A_TIME])
    finally:
        copy.unlink(missing_ok=True)


class _Answers:
    """Random access to the rows of a memory-mapped file."""

    def __init__(self, file: pa.ipc.RecordBatchFileReader, firsts: Rows) -> None:
        self._file = file
        self._firsts = firsts

    def sort(self, seeds: Rows) -> Rows:
        """Return the row numbers ordered by seed, then by key."""
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
        batches = np.searchsorted(self._firsts, rows, side="right") - 1
        by_batch = np.argsort(batches, kind="stable")
        numbers, starts = np.unique(batches[by_batch], return_index=True)
        pieces = [
            self._file.get_batch(int(number)).take(pa.array(rows[positions] - self._firsts[number]))
            for number, positions in zip(numbers, np.split(by_batch, starts[1:]), strict=True)
        ]
        table = pa.Table.from_batches(pieces, _COLUMNS).combine_chunks()
        return table.take(pa.array(np.argsort(by_batch, kind="stable")))


def finish_caption_set(
    folder: Path,
    judge: Callable[[Sequence[CaptionRecord]], tuple[Sequence[CaptionRecord], Sequence[Rejected]]],
    describe_filters: Callable[[], Sequence[Mapping[str, object]]],
    provenance: Mapping[str, object],
) -> dict[str, Any]:
    """Write the kept captions, the rejected ones with reasons, and the manifest; called after all writers have closed.

    Memory holds one block of completions and the state of the filters.

    Args:
        folder: Folder of the set.
        judge: Maps a block of captions to the kept ones, cleaned and in order, and the rejected ones, each with the
            name of the filter and its reason.
        describe_filters: Returns statistics of each filter as JSON values, with its ``name``; called after ``judge``
            has processed all blocks.
        provenance: Origin of the set, informative only; the settings of the parts are added.

    Returns:
        The manifest.

    Raises:
        OSError: If the folder cannot be written to.
        ValueError: As :func:`stream_answers`.
    """
    remove_drafts(folder)
    totals: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    spool = folder / _SPOOL
    spool.unlink(missing_ok=True)
    try:
        with pa.OSFile(str(spool), "wb") as out, pa.ipc.new_file(out, _REJECTED_COLUMNS) as rejected_rows:

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
                    rejected_rows.write_table(_make_rejected(answers, rejected))
                    yield _replace_captions(answers, kept)

            write_atomically(folder / CAPTIONS, partial(write_tables, filter_answers()))
        filters = list(describe_filters())
        names = [str(entry["name"]) for entry in filters]
        with pa.memory_map(str(spool)) as mapped:
            tables = _order_by_filter(pa.ipc.open_file(mapped), names)
            write_atomically(folder / REJECTED, partial(write_tables, tables))
    finally:
        spool.unlink(missing_ok=True)
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        **{name: totals[name] for name in ("num_written", "num_kept", "num_tokens", "num_prompt_tokens")},
        "finish_reasons": dict(reasons),
        "filters": filters,
        "provenance": {**provenance, "settings": read_settings(list_parts(folder)[0])},
    }
    write_caption_card(folder, {"default": CAPTIONS, "rejected": REJECTED}, manifest)
    text = json.dumps(manifest, indent=2) + "\n"
    write_atomically(folder / MANIFEST, lambda path: path.write_text(text))
    return manifest


def _list_records(answers: pa.Table) -> list[CaptionRecord]:
    columns = (answers[name].to_pylist() for name in ("key", "caption", "class_name", "finish_reason"))
    return [
        CaptionRecord(key, caption, class_name, is_complete=reason != "length")
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
