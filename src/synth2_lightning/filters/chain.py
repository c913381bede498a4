"""Sequence of caption filters with counts of their rejections."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from synth2_lightning.interfaces import CaptionFilter
from synth2_lightning.types import CaptionRecord


class Rejection(NamedTuple):
    """Rejected caption, as cleaned by the filters before this one."""

    record: CaptionRecord
    filter_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class FilterCount:
    """Counts of one filter.

    Args:
        name: Class name, with a number from the second filter of a class on.
        num_seen: Number of input captions.
        num_changed: Number of captions changed and kept.
        num_rejected: Number of rejected captions.
        num_by_reason: Number of rejected captions per reason, most frequent first.
    """

    name: str
    num_seen: int
    num_changed: int
    num_rejected: int
    num_by_reason: dict[str, int]

    @property
    def fraction_rejected(self) -> float:
        """Rejected fraction of the input captions; 0 without any."""
        return self.num_rejected / max(1, self.num_seen)


class FilterChain:
    """Applies filters in order to one caption set, block by block; only :class:`AnswerFilter` depends on the blocks.

    Example:
        >>> from synth2_lightning.filters.length import LengthFilter
        >>> chain = FilterChain([LengthFilter()])
        >>> for record in (CaptionRecord("a", "dog"), CaptionRecord("b", "a dog in the snow")):
        ...     _ = chain.judge([record])
        >>> chain.counts[0].num_by_reason
        {'fewer than 3 words': 1}
    """

    def __init__(self, filters: Sequence[CaptionFilter]) -> None:
        self.names = name_filters(filters)
        self._judges = [each.start() for each in filters]
        self._num_seen: Counter[str] = Counter()
        self._num_changed: Counter[str] = Counter()
        self._reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def judge(self, records: Sequence[CaptionRecord]) -> tuple[list[CaptionRecord], list[Rejection]]:
        """Return the kept, cleaned captions of the next block, and its rejections.

        Raises:
            ValueError: If a filter does not return one verdict per caption.
        """
        kept = list(records)
        rejected: list[Rejection] = []
        for name, judge in zip(self.names, self._judges, strict=True):
            inputs, kept = kept, []
            verdicts = judge(inputs)
            if len(verdicts) != len(inputs):
                raise ValueError(
                    f"{name} returned {len(verdicts)} verdicts for {len(inputs)} captions; expected one per caption. "
                    "Fix the function that start() returns."
                )
            self._num_seen[name] += len(inputs)
            for record, verdict in zip(inputs, verdicts, strict=True):
                if verdict.reason:
                    rejected.append(Rejection(record, name, verdict.reason))
                    self._reasons[name][verdict.reason] += 1
                    continue
                self._num_changed[name] += verdict.caption != record.caption
                kept.append(replace(record, caption=verdict.caption))
        return kept, rejected

    @property
    def counts(self) -> tuple[FilterCount, ...]:
        """Counts of each filter so far, in order."""
        return tuple(
            FilterCount(
                name=name,
                num_seen=self._num_seen[name],
                num_changed=self._num_changed[name],
                num_rejected=self._reasons[name].total(),
                num_by_reason=dict(self._reasons[name].most_common()),
            )
            for name in self.names
        )


def name_filters(filters: Sequence[CaptionFilter]) -> list[str]:
    """Return the class name of each filter, numbered from the second filter of a class on.

    Example:
        >>> from synth2_lightning.filters.length import LengthFilter
        >>> name_filters([LengthFilter(), LengthFilter(max_words=20)])
        ['LengthFilter', 'LengthFilter-2']
    """
    numbers: Counter[str] = Counter()
    names = []
    for caption_filter in filters:
        name = type(caption_filter).__name__
        numbers[name] += 1
        names.append(name if numbers[name] == 1 else f"{name}-{numbers[name]}")
    return names
