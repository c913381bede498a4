import logging
import pickle
from collections.abc import Iterator

import pytest

from synth2_lightning.sources.captions import IndexedCaptions
from synth2_lightning.types import CaptionRecord


class Listed(IndexedCaptions):
    def __init__(self, *records: CaptionRecord, max_empty_captions: int = 10, limit: int | None = None) -> None:
        super().__init__("listed", max_empty_captions, limit)
        self.records = records

    def read_captions(self) -> Iterator[CaptionRecord]:
        yield from self.records


def test_records_keep_their_order_and_names() -> None:
    captions = Listed(CaptionRecord("b", " a red circle\n", "circle"), CaptionRecord("a", "a square"))
    captions.load()
    captions.load()
    copy = pickle.loads(pickle.dumps(captions))

    assert [copy.record(index) for index in range(len(copy))] == [
        CaptionRecord("b", "a red circle", "circle"),
        CaptionRecord("a", "a square", ""),
    ]


def test_empty_captions_are_named_and_left_out_up_to_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    records = [CaptionRecord(str(number), " " if number % 2 else "text") for number in range(5)]
    captions = Listed(*records, max_empty_captions=2)
    with caplog.at_level(logging.WARNING):
        captions.load()

    assert [captions.record(index).key for index in range(len(captions))] == ["0", "2", "4"]
    assert "Captions 'listed' skip 2 empty ones: 1, 3" in caplog.text
    message = (
        r"2 captions of 'listed' are empty: 1, 3; expected at most max_empty_captions=1\. Write or "
        "remove them"
    )
    with pytest.raises(ValueError, match=message):
        Listed(*records, max_empty_captions=1).load()


def test_repeated_keys_are_refused_by_name() -> None:
    records = [CaptionRecord(key, "text") for key in "abcacbba"]
    with pytest.raises(ValueError, match=r"Captions.*'listed'.*3"):
        Listed(*records).load()


def test_limit_keeps_the_first() -> None:
    captions = Listed(*(CaptionRecord(key, "text") for key in "abc"), limit=2)
    captions.load()
    assert len(captions) == 2


def test_no_caption_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Captions.*'listed'.*caption"):
        Listed().load()


def test_use_before_load_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"'listed'.*load\(\).*load\(\)"):
        len(Listed())


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"max_empty_captions=-1.*0"):
        Listed(max_empty_captions=-1)
    with pytest.raises(ValueError, match=r"limit=0.*1.*captions"):
        Listed(limit=0)
