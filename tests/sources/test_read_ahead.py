import threading
from collections.abc import Iterator

import pytest

from synth2_lightning.sources.read_ahead import read_ahead


def test_order_stays_and_errors_come_in_their_place() -> None:
    def read(item: int) -> int:
        if item == 3:
            raise OSError("bad")
        return item * 2

    results = list(read_ahead(range(50), read, num_threads=4, num_ahead=5))
    assert [item for item, _ in results] == list(range(50))
    assert isinstance(results[3][1], OSError)
    assert results[4][1] == 8


def test_no_more_is_read_ahead_than_allowed() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    stream = read_ahead(numbers(), lambda item: item, num_ahead=4)
    next(stream)
    assert len(taken) == 5


def test_reading_happens_while_the_consumer_is_busy() -> None:
    started = threading.Event()
    stream = read_ahead([0, 1], lambda item: started.set() if item else None, num_threads=1, num_ahead=1)
    next(stream)
    assert started.wait(5)
    assert [item for item, _ in stream] == [1]


def test_programming_errors_are_not_taken_for_bad_items() -> None:
    with pytest.raises(ZeroDivisionError):
        list(read_ahead([0], lambda item: 1 // item))


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_threads=0.*num_ahead=64.*1"):
        list(read_ahead([1], lambda item: item, num_threads=0))
