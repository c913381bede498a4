from itertools import pairwise

import pytest
import torch

from synth2_lightning.modules.schedules import WarmupCosineSchedule


def rates(num_steps: int, warmup_steps: int, final_fraction: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = WarmupCosineSchedule(optimizer, num_steps, warmup_steps, final_fraction)
    values = []
    for _ in range(num_steps + 5):
        values.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    return values


def test_rises_to_the_peak_and_falls_to_the_final_fraction() -> None:
    values = rates(num_steps=50, warmup_steps=10, final_fraction=0.1)
    assert values[:10] == pytest.approx([2.0 * (step + 1) / 10 for step in range(10)])
    assert values[30] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert values[50:] == pytest.approx([0.2] * 5)
    assert all(later <= earlier for earlier, later in pairwise(values[10:]))


def test_no_warmup_starts_at_the_peak() -> None:
    assert rates(num_steps=10, warmup_steps=0, final_fraction=0.0)[0] == 2.0


@pytest.mark.parametrize(
    ("warmup_steps", "final_fraction", "message"),
    [(-1, 0.1, r"warmup_steps.*-1.*0"), (1, 1.5, r"final_.*1\.5.*0.*1")],
)
def test_settings_out_of_range_are_refused(warmup_steps: int, final_fraction: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rates(10, warmup_steps, final_fraction)


@pytest.mark.parametrize(("warmup_steps", "expected"), [(9, []), (10, ["10", "100 %"]), (40, ["40", "10", "25 %"])])
def test_a_warmup_until_the_end_of_the_run_is_warned_of(
    warmup_steps: int, expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    rates(10, warmup_steps, 0.1)
    assert len(caplog.messages) == bool(expected)
    assert all(number in caplog.text for number in expected)
