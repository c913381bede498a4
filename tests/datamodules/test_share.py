from itertools import pairwise

import pytest

from synth2_lightning.datamodules.share import ConstantShare, CosineShare, LinearShare, ShareSchedule, StepShare


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (ConstantShare(0.25), [0.25] * 5),
        (LinearShare(1.0, 0.0, num_steps=4), [1.0, 0.75, 0.5, 0.25, 0.0]),
        (CosineShare(0.0, 0.5, num_steps=2), [0.0, 0.25, 0.5, 0.5, 0.5]),
        (StepShare([0.0, 1.0, 0.5], boundaries=[1, 3]), [0.0, 1.0, 1.0, 0.5, 0.5]),
        (StepShare([0.5], boundaries=[]), [0.5] * 5),
    ],
)
def test_shares_by_step(schedule: ShareSchedule, expected: list[float]) -> None:
    assert [schedule(step) for step in range(5)] == pytest.approx(expected)


def test_cosine_is_slow_at_both_ends() -> None:
    shares = [CosineShare(0.0, 1.0, num_steps=10)(step) for step in range(11)]
    changes = [after - before for before, after in pairwise(shares)]

    assert changes == sorted(changes[:5]) + sorted(changes[5:], reverse=True)
    assert changes[0] < 0.1 < changes[4]


@pytest.mark.parametrize(("share", "batch_size"), [(0.25, 64), (0.1, 30), (1 / 3, 12), (0.0, 7), (1.0, 7)])
def test_whole_pairs_pass(share: float, batch_size: int) -> None:
    ConstantShare(share).check(batch_size)


def test_schedules_are_rounded() -> None:
    LinearShare(0.0, 0.33, num_steps=3).check(10)


def test_broken_pairs_name_the_nearest_ways_out() -> None:
    message = (
        "A share of 0.3 of 64 pairs is 19.2 pairs; expected a whole number. "
        "Set the share to 0.296875 or 0.3125, or batch_size to 60 or 70."
    )
    with pytest.raises(ValueError, match=message):
        ConstantShare(0.3).check(64)
    with pytest.raises(ValueError, match=r"Set the share to 0 or 0\.333333, or batch_size to 4\."):
        ConstantShare(0.25).check(3)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_shares_beyond_the_whole_are_refused(share: float) -> None:
    message = r"expected a share from 0 to 1"
    with pytest.raises(ValueError, match=rf"ConstantShare\.share is {share}; {message}"):
        ConstantShare(share)
    with pytest.raises(ValueError, match=rf"CosineShare\.start is {share}; {message}"):
        CosineShare(share, 0.0, num_steps=1)
    with pytest.raises(ValueError, match=rf"StepShare\.shares is {share}; {message}"):
        StepShare([share], [])


def test_change_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"LinearShare\.num_steps is 0; expected 1 or more"):
        LinearShare(0.0, 1.0, num_steps=0)


@pytest.mark.parametrize("boundaries", [[], [1, 2], [0], [-1]])
def test_boundaries_that_do_not_fit_are_refused(boundaries: list[int]) -> None:
    with pytest.raises(ValueError, match="expected rising steps above 0, one fewer than the shares"):
        StepShare([0.0, 1.0], boundaries)
