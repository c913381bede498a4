"""Writing and filtering of generated captions."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from synth2_lightning.callbacks.part_writer import PartWriterCallback
from synth2_lightning.filters.answers import AnswerFilter
from synth2_lightning.filters.chain import FilterChain, FilterCount
from synth2_lightning.interfaces import CaptionFilter
from synth2_lightning.shards.caption_set import CAPTIONS, MANIFEST, CaptionSetWriter, finish_caption_set
from synth2_lightning.types import WrittenCaptions

_Filters = list[tuple[str, dict[str, Any]]]
"""Names and settings, in order."""


class CaptionWriterCallback(PartWriterCallback):
    """Writes the :class:`WrittenCaptions` of every ``predict_step`` to a caption set, rank by rank, and filters them.

    Unmodified answers are written in parts. When all are complete, rank 0 filters them: ``captions.parquet`` holds the
    kept captions, ``rejected.parquet`` the others with their reasons, ``manifest.json`` the counts. The same command
    with other filters repeats the filtering only. The first filter is always
    :class:`~synth2_lightning.filters.answers.AnswerFilter`, which extracts the caption from the answer.
    :class:`PartWriterCallback` describes how a run resumes.

    Args:
        folder: Folder of the caption set.
        filters: Applied in this order, after ``AnswerFilter``; each gets the captions that the earlier ones kept.
        records_per_part: Answers per file; a kill loses at most these, on each rank.
    """

    noun = "captions"

    def __init__(self, folder: str, filters: Sequence[CaptionFilter] = (), records_per_part: int = 256) -> None:
        super().__init__(folder, records_per_part)
        self.filters = filters

    def make_writer(self, folder: Path, rank: int) -> CaptionSetWriter:
        """Return the writer of a rank."""
        return CaptionSetWriter(folder, rank, self.records_per_part)

    def append(self, writer: CaptionSetWriter, outputs: Any, pl_module: LightningModule) -> int:
        """Write the answers of a step."""
        if not isinstance(outputs, WrittenCaptions):
            raise TypeError(
                f"CaptionWriterCallback got {type(outputs).__name__} from {type(pl_module).__name__}.predict_step; "
                "expected WrittenCaptions. Use CaptionWritingModule."
            )
        return writer.append(outputs)

    def finish(self, folder: Path, provenance: dict[str, Any], settings: dict[str, Any]) -> str:
        """Filter the answers; write kept and rejected captions and the manifest."""
        filters = [AnswerFilter(), *self.filters]
        chain = FilterChain(filters)

        def describe() -> list[dict[str, Any]]:
            pairs = zip(chain.counts, filters, strict=True)
            return [
                {**asdict(count), "fraction_rejected": round(count.fraction_rejected, 4), "settings": each.provenance()}
                for count, each in pairs
            ]

        before = _read_filters(folder)
        manifest = finish_caption_set(folder, chain.judge, describe, provenance)
        self._log_changed_filters(before, _read_filters(folder), manifest["num_written"])
        self._warn_of_empty_answers(chain.counts[0], manifest["finish_reasons"].get("length", 0))
        by_filter = ", ".join(f"{count.name} {count.num_rejected}" for count in chain.counts if count.num_rejected)
        return (
            f"{manifest['num_written']} answers are in {self.folder}; {manifest['num_kept']} captions are kept in "
            f"{folder / CAPTIONS}{f' (rejected: {by_filter})' if by_filter else ''}"
        )

    def _log_changed_filters(self, before: _Filters | None, now: _Filters | None, num_written: int) -> None:
        if before is None or now is None or before == now:
            return
        removed = ", ".join(name for name, settings in before if (name, settings) not in now) or "none"
        added = ", ".join(name for name, settings in now if (name, settings) not in before) or "none"
        rank_zero_info(
            f"The filters of {self.folder} differ from those that it was last finished with (removed or changed: "
            f"{removed}; added or changed: {added}). All {num_written} answers were filtered again."
        )

    def _warn_of_empty_answers(self, count: FilterCount, num_cut: int) -> None:
        if count.num_rejected * 2 > count.num_seen:
            reasons = ", ".join(f"{number} {reason}" for reason, number in count.num_by_reason.items())
            rank_zero_warn(
                f"{count.num_rejected} of {count.num_seen} answers in {self.folder} contain no caption ({reasons}); "
                f"{num_cut} answers were cut at the token limit. A reasoning model needs a larger limit, or reasoning "
                "turned off: raise model.init_args.generator.init_args.max_new_tokens (sampling.max_new_tokens for a "
                "local model), or turn reasoning off with extra_body. Then write to a new folder: existing answers are "
                "not replaced. Empty answers are not cached by the generator."
            )


def _read_filters(folder: Path) -> _Filters | None:
    """Return the filters of a finished set; ``None`` if it is not finished, or its manifest is damaged."""
    try:
        filters = json.loads((folder / MANIFEST).read_text("utf-8"))["filters"]
        return [(each["name"], each["settings"]) for each in filters]
    except (OSError, ValueError, KeyError, TypeError):  # the manifest is then written again
        return None
