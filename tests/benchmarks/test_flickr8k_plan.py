import pytest

from flickr8k_chain import split
from flickr8k_plan import EQUAL, GRID, PROBES, REGIMES
from label_multiplier import equivalent

BY_NAME = {regime.name: regime for regime in (*REGIMES, *PROBES)}


def test_the_photos_of_a_draw_are_disjoint_and_the_held_back_ones_the_same() -> None:
    first, held_back = split(range(6000), 0)
    assert (first, held_back) == (list(range(5500)), list(range(5500, 6000)))
    second, same = split(range(6000), 1)
    assert same == held_back
    assert sorted(second) == first
    assert second != first
    assert second == split(range(6000), 1)[0]


def test_every_point_and_regime_refers_to_others_that_exist() -> None:
    assert EQUAL in GRID
    assert len({point.name for point in GRID}) == len(GRID)
    for regime in BY_NAME.values():
        named = {name for name in (regime.like, regime.start, regime.control) if name}
        assert named <= BY_NAME.keys()
        assert not (regime.like and BY_NAME[regime.like].like), regime.name


def test_the_equivalent_number_of_photos_is_interpolated() -> None:
    curve: dict[int, float] = {100: 0.2, 1000: 0.4, 10000: 0.5}
    assert equivalent(curve, 0.3) == 316
    assert equivalent(curve, 0.5) == 10000
    assert equivalent(curve, 0.51) is None
    assert equivalent({100: 0.2, 1000: 0.1, 10000: 0.5}, 0.3) == pytest.approx(3162, abs=1)
