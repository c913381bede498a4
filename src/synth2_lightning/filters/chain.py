"""Filters one after the other, with an account of what each of them did."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from synth2_lightning.interfaces import CaptionFilter
from synth2_lightning.types import CaptionRecord


@dataclass(frozen=True, slots=True)
class Rejection:
    """A caption that a filter took out.

    Args:
        record: The caption as the filter got it, cleaned by the filters before.
        filter_name: Which filter it was.
        reason: What the filter said.

    Example:
        >>> Rejection(CaptionRecord("a", "dog"), "LengthFilter", "fewer than 4 words").filter_name
        'LengthFilter'
    """

    record: CaptionRecord
    filter_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class FilterCount:
    """What one filter did.

    Args:
        name: Its class; where a list holds a class more than once, with a number.
        num_seen: Captions that it got.
        num_changed: Captions that it cleaned and let pass.
        num_rejected: Captions that it took out.
        num_by_reason: How many of them for which reason, the most frequent first.

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
    """What a list of filters left of captions.

    Args:
        kept: The captions that passed them all, cleaned, in their order.
        rejected: The others, filter by filter.
        counts: What each filter did, in the order of the filters.

    Example:
        >>> FilterOutcome((), (), ()).kept
        ()
    """

    kept: tuple[CaptionRecord, ...]
    rejected: tuple[Rejection, ...]
    counts: tuple[FilterCount, ...]


class FilterChain:
    """Filters one after the other over one set, which comes block by block; each sees what the earlier ones left.

    How the set is divided changes nothing: not what is kept, nor the counts.

    Args:
        filters: In their order.

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
        """Return those of the next captions that passed all filters, cleaned, and the others, filter by filter.

        Raises:
            ValueError: If a filter gives more or fewer verdicts than it got captions.
        """
        kept = list(records)
        rejected: list[Rejection] = []
        for name, judge, tally in zip(self.names, self._judges, self._tallies, strict=True):
            seen, kept = kept, []
            verdicts = judge(seen)
            if len(verdicts) != len(seen):
                raise ValueError(
                    f"{name} gave {len(verdicts)} verdicts on {len(seen)} captions; expected one on each. Let what its "
                    "start() returns give a verdict, with a reason where it rejects, for every record and in their "
                    "order."
                )
            tally.num_seen += len(seen)
            for record, verdict in zip(seen, verdicts, strict=True):
                if verdict.reason:
                    rejected.append(Rejection(record, name, verdict.reason))
                    tally.reasons[verdict.reason] += 1
                    continue
                tally.num_changed += verdict.caption != record.caption
                kept.append(replace(record, caption=verdict.caption))
        return kept, rejected

    @property
    def counts(self) -> tuple[FilterCount, ...]:
        """What each filter did so far, in the order of the filters."""
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
    """Send captions through filters in their order; each sees what the earlier ones left.

    Raises:
        ValueError: If a filter gives more or fewer verdicts than it got captions.

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
    """Name filters after their classes; the second of a class gets the number 2.

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
