"""What filters share that look at one caption at a time."""

from abc import abstractmethod

from synth2_lightning.interfaces import CaptionFilter, Judge
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

    def start(self) -> Judge:
        """Return a function that says so of every caption."""
        return lambda records: [self.judge_one(record) for record in records]
