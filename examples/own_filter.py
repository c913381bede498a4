"""A filter of your own; with ``PYTHONPATH=examples`` and ``--trust own_filter``, the list of filters names it."""

from dataclasses import dataclass

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.types import CaptionRecord, Verdict


@dataclass(frozen=True)
class DigitFilter(RecordFilter):
    """Rejects captions with many digits, which are rarely seen in an image."""

    max_digits: int = 2

    def judge_one(self, record: CaptionRecord) -> Verdict:
        num_digits = sum(map(str.isdigit, record.caption))
        return Verdict(record.caption, "" if num_digits <= self.max_digits else f"more than {self.max_digits} digits")
