"""Filters one after the other, with an account of what each of them did."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    kept = list(records)
    rejected: list[Rejection] = []
    counts: list[FilterCount] = []
    for name, caption_filter in zip(name_filters(filters), filters, strict=True):
        seen, kept = kept, []
        reasons: Counter[str] = Counter()
        num_changed = 0
        verdicts = caption_filter.judge(seen)
        if len(verdicts) != len(seen):
            raise ValueError(
                f"{name} gave {len(verdicts)} verdicts on {len(seen)} captions; expected one on each. Let its judge() "
                "give a verdict, with a reason where it rejects, for every record and in their order."
            )
        for record, verdict in zip(seen, verdicts, strict=True):
            if verdict.reason:
                rejected.append(Rejection(record, name, verdict.reason))
                reasons[verdict.reason] += 1
                continue
            num_changed += verdict.caption != record.caption
            kept.append(replace(record, caption=verdict.caption))
        counts.append(FilterCount(name, len(seen), num_changed, reasons.total(), dict(reasons.most_common())))
    return FilterOutcome(tuple(kept), tuple(rejected), tuple(counts))


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
