import pytest

from synth2_lightning.datamodules.fraction import ConstantFraction, FractionSchedule, LinearFraction


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (ConstantFraction(0.25), [0.25] * 5),
        (LinearFraction(1.0, 0.0, num_steps=4), [1.0, 0.75, 0.5, 0.25, 0.0]),
        (LinearFraction(0.0, 0.5, num_steps=2), [0.0, 0.25, 0.5, 0.5, 0.5]),
    ],
)
def test_fractions_by_step(schedule: FractionSchedule, expected: list[float]) -> None:
    assert [schedule(step) for step in range(5)] == pytest.approx(expected)


def passes(schedule: FractionSchedule, batch_size: int) -> bool:
    try:
        schedule.check(batch_size)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("fraction", "divisor"), [(0.25, 4), (0.1, 10), (1 / 3, 3), (0.0, 1), (1.0, 1)])
def test_batch_sizes_with_a_whole_number_of_pairs_pass(fraction: float, divisor: int) -> None:
    passed = [size for size in range(1, 65) if passes(ConstantFraction(fraction), size)]
    assert passed == [*range(divisor, 65, divisor)]


def test_fractions_that_change_pass_with_all_batch_sizes() -> None:
    assert all(passes(LinearFraction(0.0, 0.33, num_steps=3), size) for size in range(1, 65))


def test_broken_pairs_name_the_nearest_ways_out() -> None:
    message = (
        "A fraction of 0.3 of 64 pairs is 19.2 pairs; expected a whole number. "
        "Set the fraction to 0.296875 or 0.3125, or batch_size to 60 or 70."
    )
    with pytest.raises(ValueError, match=message):
        ConstantFraction(0.3).check(64)
    with pytest.raises(ValueError, match=r"0.*0\.333333.*batch_size.*4"):
        ConstantFraction(0.25).check(3)
    with pytest.raises(ValueError, match=r"or 0\.34375\.$"):  # no batch size near 64 fits
        ConstantFraction(0.3333).check(64)


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_fractions_beyond_the_whole_are_refused(fraction: float) -> None:
    message = r"expected a fraction from 0 to 1"
    with pytest.raises(ValueError, match=rf"ConstantFraction\.fraction is {fraction}; {message}"):
        ConstantFraction(fraction)
    with pytest.raises(ValueError, match=rf"LinearFraction\.start is {fraction}; {message}"):
        LinearFraction(fraction, 0.0, num_steps=1)


def test_change_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"num_steps.*0"):
        LinearFraction(0.0, 1.0, num_steps=0)
