from itertools import pairwise

import pytest
import torch

from synth2_lightning.modules.schedules import WarmupCosineSchedule


def rates(num_steps: int, warmup_steps: int, final_share: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = WarmupCosineSchedule(optimizer, num_steps, warmup_steps, final_share)
    values = []
    for _ in range(num_steps + 5):
        values.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    return values


def test_rises_to_the_peak_falls_to_the_share_and_stays() -> None:
    values = rates(num_steps=50, warmup_steps=10, final_share=0.1)
    assert values[:10] == pytest.approx([2.0 * (step + 1) / 10 for step in range(10)])
    assert values[30] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert values[50:] == pytest.approx([0.2] * 5)
    assert all(later <= earlier for earlier, later in pairwise(values[10:]))


def test_no_warmup_starts_at_the_peak() -> None:
    assert rates(num_steps=10, warmup_steps=0, final_share=0.0)[0] == 2.0


@pytest.mark.parametrize(
    ("warmup_steps", "final_share", "message"),
    [(-1, 0.1, "warmup_steps is -1; expected 0 or more"), (1, 1.5, r"final_share is 1.5; expected 0 to 1")],
)
def test_refuses_what_makes_no_sense(warmup_steps: int, final_share: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rates(10, warmup_steps, final_share)
