import pytest

from synth2_lightning.metrics.balance import measure_balance


def test_equal_groups_are_balanced() -> None:
    balance = measure_balance([3] * 20)
    assert balance.entropy == pytest.approx(4.3219, abs=1e-4)
    assert balance.evenness == pytest.approx(1)
    assert balance.top_five_fraction == pytest.approx(0.25)
    assert balance.gini == pytest.approx(0)


def test_empty_groups_count_as_groups() -> None:
    balance = measure_balance([0, 10, 0, 0])
    assert (balance.num_groups, balance.entropy, balance.evenness, balance.gini) == (4, 0, 0, 0.75)


def test_a_single_group_has_evenness_one() -> None:
    assert measure_balance([7]).evenness == 1


@pytest.mark.parametrize("sizes", [[], [0, 0], [3, -1]])
def test_invalid_sizes_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"groups.*members"):
        measure_balance(sizes)
