import logging
from collections.abc import Iterator

import pytest
from PIL import Image

from synth2_lightning.sources.base import Entry, IndexedSource, SkipCounter


class ListSource(IndexedSource):
    def __init__(self, entries: list[Entry], limit: int | None = None) -> None:
        super().__init__("list", limit)
        self.entries = entries
        self.num_reads = 0

    def read_index(self, skipped: SkipCounter) -> Iterator[Entry]:
        self.num_reads += 1
        yield from self.entries

    def read_image(self, location: str) -> Image.Image:
        return Image.new("RGB", (1, 1), location)


def test_captions_are_stripped_and_empty_ones_left_out_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    source = ListSource(
        [
            Entry("a", [" one ", "", "two"], "red"),
            Entry("b", ["  "], "red"),
            Entry("c", ["three"], None),
            Entry("d", [], "red"),
            Entry("e", ["four"], "blue"),
        ]
    )
    with caplog.at_level(logging.WARNING):
        source.load()

    assert [source.key(index) for index in range(len(source))] == ["a", "e"]
    assert source.captions(0) == ("one", "two")
    assert source.image(1).getpixel((0, 0)) == (0, 0, 255)
    (record,) = caplog.records
    assert record.message == (
        "Source 'list' skips 2 empty captions (the first: of a), 2 images without a caption (the first: b), "
        "1 captions without an image (the first: c)."
    )


def test_nothing_left_out_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    ListSource([Entry("a", ["one"], "red")]).load()

    assert not caplog.records


def test_load_reads_the_index_once() -> None:
    source = ListSource([Entry("a", ["one"], "red")])
    source.load()
    source.load()

    assert source.num_reads == 1


def test_limit_keeps_the_first_images_that_have_a_caption() -> None:
    source = ListSource([Entry("a", [""], "red"), *(Entry(key, ["x"], "red") for key in "bcd")], limit=2)
    source.load()

    assert [source.key(index) for index in range(len(source))] == ["b", "c"]


def test_same_key_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"two.*key 'a'"):
        ListSource([Entry("a", ["one"], "red"), Entry("a", ["two"], "red")]).load()


def test_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'list'.*caption"):
        ListSource([Entry("a", [""], "red")]).load()


def test_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"limit=0.*1"):
        ListSource([], limit=0)


def test_use_before_load_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"load\(\).*call.*load\(\)"):
        len(ListSource([]))


def test_a_name_that_no_file_can_have_is_an_unreadable_image() -> None:
    source = ListSource([Entry("a", ["a dog"], "a\0.jpg")])
    source.load()
    assert source.image_fingerprint(0) == "missing"
    with pytest.raises(OSError, match=r"null byte"):
        IndexedSource.read_image(source, "a\0.jpg")
