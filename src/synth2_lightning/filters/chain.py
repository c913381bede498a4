"""Sequence of caption filters with counts of their rejections."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from synth2_lightning.interfaces import CaptionFilter
from synth2_lightning.types import CaptionRecord


@dataclass(frozen=True, slots=True)
class Rejection:
    """Rejected caption.

    Args:
        record: Caption before this filter, cleaned by the filters before it.
        filter_name: Name of the filter.
        reason: Reason of the filter.

    Example:
        >>> Rejection(CaptionRecord("a", "dog"), "LengthFilter", "fewer than 4 words").filter_name
        'LengthFilter'
    """

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

    Example:
        >>> FilterCount("LengthFilter", 10, 0, 1, {"fewer than 4 words": 1}).num_rejected
        1
    """

    name: str
    num_seen: int
    num_changed: int
    num_rejected: int
    num_by_reason: dict[str, int]


@dataclass(frozen=True, slots=True)
class FilterOutcome:
    """Result of a sequence of filters.

    Args:
        kept: Cleaned captions that passed all filters, in order.
        rejected: Rejected captions, grouped by filter.
        counts: Counts of each filter, in order.

    Example:
        >>> FilterOutcome((), (), ()).kept
        ()
    """

    kept: tuple[CaptionRecord, ...]
    rejected: tuple[Rejection, ...]
    counts: tuple[FilterCount, ...]


class FilterChain:
    """Applies filters in order to one caption set, block by block; the block size does not affect the result.

    Args:
        filters: Filters in order.

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
        self._tallies = [_Tally() for _ in filters]

    def judge(self, records: Sequence[CaptionRecord]) -> tuple[list[CaptionRecord], list[Rejection]]:
        """Return the kept, cleaned captions of the next block, and its rejections.

        Raises:
            ValueError: If a filter does not return one verdict per caption.
        """
        kept = list(records)
        rejected: list[Rejection] = []
        for name, judge, tally in zip(self.names, self._judges, self._tallies, strict=True):
            inputs, kept = kept, []
            verdicts = judge(inputs)
            if len(verdicts) != len(inputs):
                raise ValueError(
                    f"{name} returned {len(verdicts)} verdicts for {len(inputs)} captions; expected one per caption. "
                    "Fix the function that start() returns."
                )
            tally.num_seen += len(inputs)
            for record, verdict in zip(inputs, verdicts, strict=True):
                if verdict.reason:
                    rejected.append(Rejection(record, name, verdict.reason))
                    tally.reasons[verdict.reason] += 1
                    continue
                tally.num_changed += verdict.caption != record.caption
                kept.append(replace(record, caption=verdict.caption))
        return kept, rejected

    @property
    def counts(self) -> tuple[FilterCount, ...]:
        """Counts of each filter so far, in order."""
        pairs = zip(self.names, self._tallies, strict=True)
        return tuple(
            FilterCount(
                name,
                tally.num_seen,
                tally.num_changed,
                tally.reasons.total(),
                dict(tally.reasons.most_common()),
            )
            for name, tally in pairs
        )


@dataclass(slots=True)
class _Tally:
    num_seen: int = 0
    num_changed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def run_filters(records: Sequence[CaptionRecord], filters: Sequence[CaptionFilter]) -> FilterOutcome:
    """Apply filters in order to a caption set.

    Raises:
        ValueError: If a filter does not return one verdict per caption.

    Example:
        >>> from synth2_lightning.filters.length import LengthFilter
        >>> records = [CaptionRecord("a", "dog"), CaptionRecord("b", "a dog in the snow")]
        >>> outcome = run_filters(records, [LengthFilter()])
        >>> [record.key for record in outcome.kept], outcome.counts[0].num_by_reason
        (['b'], {'fewer than 3 words': 1})
    """
    chain = FilterChain(filters)
    kept, rejected = chain.judge(records)
    return FilterOutcome(tuple(kept), tuple(rejected), chain.counts)


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
