from collections.abc import Sequence
from typing import Any

import pytest

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.filters.chain import FilterChain, FilterCount, Rejection, name_filters
from synth2_lightning.filters.duplicates import ExactDuplicates, NearDuplicates
from synth2_lightning.filters.length import LengthFilter
from synth2_lightning.interfaces import CaptionFilter, Judge
from synth2_lightning.types import CaptionRecord, Verdict


class Lowering(RecordFilter):
    def judge_one(self, record: CaptionRecord) -> Verdict:
        return Verdict(record.caption.lower(), "has a z" if "z" in record.caption.lower() else "")

    def provenance(self) -> dict[str, Any]:
        return {}


class Silent(CaptionFilter):
    def start(self) -> Judge:
        return lambda records: []

    def provenance(self) -> dict[str, Any]:
        return {}


def make_records(*captions: str) -> list[CaptionRecord]:
    return [CaptionRecord(f"key-{number}", caption, "thing") for number, caption in enumerate(captions)]


def run_filters(
    records: Sequence[CaptionRecord], filters: Sequence[CaptionFilter]
) -> tuple[list[CaptionRecord], list[Rejection], tuple[FilterCount, ...]]:
    chain = FilterChain(filters)
    return *chain.judge(records), chain.counts


def test_each_filter_gets_what_the_earlier_ones_kept() -> None:
    records = make_records("A DOG RUNS", "A Zebra", "dog", "a dog runs", "a cat sleeps")
    kept, rejected, counts = run_filters(records, [Lowering(), LengthFilter(), ExactDuplicates()])

    assert kept == [CaptionRecord("key-0", "a dog runs", "thing"), records[4]]
    assert rejected == [
        (records[1], "Lowering", "has a z"),
        (records[2], "LengthFilter", "fewer than 3 words"),
        (records[3], "ExactDuplicates", "repeats an earlier one"),
    ]
    assert counts == (
        FilterCount("Lowering", 5, 1, 1, {"has a z": 1}),
        FilterCount("LengthFilter", 4, 0, 1, {"fewer than 3 words": 1}),
        FilterCount("ExactDuplicates", 3, 0, 1, {"repeats an earlier one": 1}),
    )
    assert [count.fraction_rejected for count in counts] == [1 / 5, 1 / 4, 1 / 3]
    assert FilterChain([Lowering()]).counts[0].fraction_rejected == 0


def test_reasons_are_counted_most_frequent_first() -> None:
    records = make_records("a b c d e", "a", "b", "a b")
    _, _, (count,) = run_filters(records, [LengthFilter(min_words=2, max_words=4)])
    assert list(count.num_by_reason.items()) == [("fewer than 2 words", 2), ("more than 4 words", 1)]


def test_nothing_is_lost() -> None:
    records = make_records(*("dog", "a dog runs", "zzz", "a b c", "a b c"))
    kept, rejected, counts = run_filters(records, [LengthFilter(), ExactDuplicates(), Lowering()])
    keys = [record.key for record in kept] + [item.record.key for item in rejected]
    assert sorted(keys) == [record.key for record in records]
    assert len(kept) + sum(count.num_rejected for count in counts) == len(records)


def test_without_filters_all_stay() -> None:
    records = make_records("dog")
    assert run_filters(records, []) == (records, [], ())
    assert run_filters([], [LengthFilter(), ExactDuplicates()])[2][1].num_seen == 0


def test_the_second_of_a_class_gets_a_number() -> None:
    filters = [LengthFilter(), Lowering(), LengthFilter(), LengthFilter()]
    assert name_filters(filters) == ["LengthFilter", "Lowering", "LengthFilter-2", "LengthFilter-3"]


def test_a_verdict_too_few_is_refused() -> None:
    message = r"Silent.* 0 verdicts.* 2 captions.*start\(\)"
    with pytest.raises(ValueError, match=message):
        run_filters(make_records("a", "b"), [Silent()])


def test_blocks_change_nothing() -> None:
    """Compares a set in one block, in blocks of two, and in single captions."""
    texts = ["a red dog runs far", "A red dog runs far!", "a z", "dog", "a red dog runs far away", "two cats sleep"] * 3
    records = make_records(*texts)
    filters = [Lowering(), LengthFilter(), ExactDuplicates(), NearDuplicates(0.5)]
    kept, rejected, counts = run_filters(records, filters)
    assert 0 < len(kept) < 6
    for size in (1, 2, 5):
        chain = FilterChain(filters)
        blocks = [chain.judge(records[start : start + size]) for start in range(0, len(records), size)]
        assert [record for block, _ in blocks for record in block] == kept
        assert sorted((item for _, block in blocks for item in block), key=repr) == sorted(rejected, key=repr)
        assert chain.counts == counts
