import random
from typing import Any

import pytest

from synth2_lightning.generators.request_limits import Pacer, RequestLimits


def test_waits_double_up_to_a_minute_and_differ() -> None:
    limits = RequestLimits(retry_delay=2.0)
    for num_failures, longest in ((1, 2.0), (2, 4.0), (3, 8.0), (6, 60.0), (2000, 60.0)):
        waits = {limits.back_off(num_failures) for _ in range(20)}
        assert len(waits) > 1
        assert all(longest / 2 <= wait <= longest for wait in waits)


def test_waits_leave_the_random_state_of_the_run_alone() -> None:
    before = random.getstate()
    RequestLimits().back_off(1)
    assert random.getstate() == before


@pytest.mark.parametrize("change", [{"num_concurrent": 0}, {"max_retries": -1}])
def test_counts_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"in flight.*retries"):
        RequestLimits(**change)


@pytest.mark.parametrize("change", [{"requests_per_minute": 0.0}, {"timeout": 0.0}, {"retry_delay": 0.0}])
def test_rates_and_times_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"requests_per_minute"):
        RequestLimits(**change)


def test_a_pacer_without_a_rate_waits_only_on_hold() -> None:
    pacer = Pacer(None)
    assert [pacer.take_turn() for _ in range(3)] == [0.0] * 3
    pacer.hold(5.0)
    pacer.hold(1.0)
    assert 4.9 < pacer.take_turn() <= 5.0
