"""Base class of filters that process captions independently."""

from abc import abstractmethod

from synth2_lightning.interfaces import CaptionFilter, Judge
from synth2_lightning.types import CaptionRecord, Verdict


class RecordFilter(CaptionFilter):
    """Filter whose verdict depends on one caption only, so that machines can process captions in parallel."""

    @abstractmethod
    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Return the verdict on one caption."""

    def start(self) -> Judge:
        """Return a judge that applies :meth:`judge_one` to every caption."""
        return lambda records: [self.judge_one(record) for record in records]
