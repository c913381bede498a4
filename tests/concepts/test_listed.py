import logging
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from synth2_lightning.concepts.listed import ListedConcepts
from synth2_lightning.types import Concept


class Numbers(ListedConcepts):
    def __init__(self, *keys: str, num_odd: int = 0) -> None:
        super().__init__("numbers")
        self.keys = keys
        self.num_odd = num_odd
        self.num_reads = 0

    def read_concepts(self, excluded: Counter[str]) -> Iterator[Concept]:
        self.num_reads += 1
        excluded.update(["odd"] * self.num_odd)
        yield from (Concept(key, f"number {key}") for key in self.keys)


def test_the_list_is_read_once() -> None:
    numbers = Numbers("0", "2")
    numbers.load()
    numbers.load()
    assert numbers.num_reads == 1
    assert len(numbers) == 2
    assert numbers.concept(1) == Concept("2", "number 2")


def test_skipped_input_is_counted_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    numbers = Numbers("0", num_odd=3)
    with caplog.at_level(logging.INFO):
        numbers.load()
    assert numbers.provenance()["num_excluded"] == {"odd": 3}
    assert re.search(r"'numbers'.*\b1\b.*\b3\b.*3 odd", caplog.text)


def test_the_fingerprint_is_that_of_what_the_list_holds() -> None:
    lists = [Numbers("0", "2"), Numbers("0", "2"), Numbers("2", "0"), Numbers("0")]
    for numbers in lists:
        numbers.load()
    first, same, turned, short = (numbers.provenance() for numbers in lists)
    assert (
        first
        == same
        == {"name": "numbers", "num_concepts": 2, "num_excluded": {}} | {"fingerprint": first["fingerprint"]}
    )
    assert len({provenance["fingerprint"] for provenance in (first, turned, short)}) == 3


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'numbers'.*concept.*\b3\b"):
        Numbers(num_odd=3).load()


def test_keys_that_come_twice_are_named() -> None:
    with pytest.raises(ValueError, match=r"'numbers'.*\b1 keys?\b.*\b2\b"):
        Numbers("0", "2", "2").load()


def test_concepts_are_available_after_load_only() -> None:
    with pytest.raises(RuntimeError, match=r"'numbers'.*load\(\)"):
        Numbers("0").concept(0)
