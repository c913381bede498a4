import pytest

from synth2_lightning.metrics.balance import measure_balance


def test_equal_groups_are_even() -> None:
    balance = measure_balance([3] * 20)
    assert balance.entropy == pytest.approx(4.3219, abs=1e-4)
    assert balance.evenness == pytest.approx(1)
    assert balance.top_five_share == pytest.approx(0.25)
    assert balance.gini == pytest.approx(0)


def test_empty_groups_count_as_groups() -> None:
    balance = measure_balance([0, 10, 0, 0])
    assert (balance.num_groups, balance.entropy, balance.evenness, balance.gini) == (4, 0, 0, 0.75)


def test_one_group_alone_is_even() -> None:
    assert measure_balance([7]).evenness == 1


@pytest.mark.parametrize("sizes", [[], [0, 0], [3, -1]])
def test_what_is_no_spread_is_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"groups have .* members.*expected sizes of 0 or more, one of them at least"):
        measure_balance(sizes)
