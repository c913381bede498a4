"""What filters share that look at one caption at a time."""

from abc import abstractmethod
from collections.abc import Sequence

from synth2_lightning.interfaces import CaptionFilter
from synth2_lightning.types import CaptionRecord, Verdict


class RecordFilter(CaptionFilter):
    """A filter whose verdict depends on nothing but the caption itself, so that many machines may share the work.

    Example:
        >>> from synth2_lightning.filters.length import LengthFilter
        >>> LengthFilter(min_words=2).judge_one(CaptionRecord("a", "dog")).reason
        'fewer than 2 words'
    """

    @abstractmethod
    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Say of one caption whether it may stay."""

    def judge(self, records: Sequence[CaptionRecord]) -> list[Verdict]:
        """Say so of every caption."""
        return [self.judge_one(record) for record in records]
