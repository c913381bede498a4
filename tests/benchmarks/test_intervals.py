import numpy as np
import pytest
from scipy.stats import spearmanr  # type: ignore[import-untyped]

from intervals import Cell, Floats, Means, estimate, rank_correlation


def difference(means: Means) -> Floats:
    return means["ours"] - means["theirs"]


def test_with_one_run_the_interval_is_that_of_the_images() -> None:
    scores = np.array([1.0 + i % 2 for i in range(100)])
    runs = {"ours": {Cell(0, 0, 0): scores}, "theirs": {Cell(0, 0, 0): np.full(100, 0.75)}}

    value, low, high = estimate(runs, difference)
    assert value == pytest.approx(0.75)
    # Half of the images differ by 0.25, half by 1.25: the mean of 100 has a standard error of 0.05.
    assert (low, high) == pytest.approx((0.75 - 1.96 * 0.05, 0.75 + 1.96 * 0.05), abs=0.01)
    assert estimate({"ours": runs["ours"], "theirs": runs["ours"]}, difference) == (0, 0, 0)


def test_with_equal_images_the_interval_is_that_of_the_nested_seeds() -> None:
    # Only two draws differ, 0 and 1: their resampled mean is 0, 0.5 or 1 with probabilities 1/4, 1/2, 1/4.
    ours = {Cell(draw, 0, seed): np.full(3, float(draw)) for draw in (0, 1) for seed in (0, 1)}
    theirs = {Cell(draw, 0, 0): np.zeros(3) for draw in (0, 1)}
    assert estimate({"ours": ours, "theirs": theirs}, difference) == (0.5, 0.0, 1.0)

    # Many captioners of one generator: the standard error of their mean.
    random = np.random.default_rng(0)
    values = random.normal(size=64)
    ours = {Cell(0, 0, seed): np.full(3, value) for seed, value in enumerate(values)}
    value, low, high = estimate({"ours": ours, "theirs": {Cell(0, 0, 0): np.zeros(3)}}, difference)
    error = values.std() / 8
    assert value == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((value - 1.96 * error, value + 1.96 * error), abs=0.02)


def test_captioners_of_a_generator_do_not_count_as_independent_generators() -> None:
    random = np.random.default_rng(0)
    widths = []
    for num_seeds in (1, 8):
        ours = {
            Cell(0, generator, seed): np.full(3, value)
            for generator, value in enumerate(random.normal(size=8))
            for seed in range(num_seeds)
        }
        _, low, high = estimate({"ours": ours, "theirs": {Cell(0, 0, 0): np.zeros(3)}}, difference)
        widths.append((high - low) / np.std([scores[0] for scores in ours.values()]))
    assert widths[0] == pytest.approx(widths[1], rel=0.1)


def test_draws_are_resampled_together() -> None:
    effects = {0: 0.0, 1: 5.0}  # the effect of a draw is the same on both sides
    ours = {Cell(draw, 0, 0): np.full(4, effect + 1.0) for draw, effect in effects.items()}
    theirs = {Cell(draw, 0, 0): np.full(4, effect) for draw, effect in effects.items()}
    assert estimate({"ours": ours, "theirs": theirs}, difference) == pytest.approx((1, 1, 1))


def test_only_common_draws_count_and_runs_may_be_unbalanced() -> None:
    ours = {Cell(0, 0, 0): np.ones(4), Cell(1, 0, 0): np.full(4, 9.0), Cell(0, 1, 0): np.full(4, 2.0)}
    ours[Cell(0, 1, 1)] = np.full(4, 4.0)
    theirs = {Cell(0, 0, 0): np.zeros(4)}
    value, low, high = estimate({"ours": ours, "theirs": theirs}, difference)
    assert value == pytest.approx((1 + (2 + 4) / 2) / 2)  # generators have equal weights
    # 4 has a probability of 1 in 64: both copies are generator 1, and each of their four captioners is the second.
    assert (low, high) == pytest.approx((1, 3.5))
    with pytest.raises(ValueError, match=r"ours, theirs.*no draw"):
        estimate({"ours": ours, "theirs": {Cell(2, 0, 0): np.zeros(4)}}, difference)


def test_the_interval_covers_the_truth_in_simulations() -> None:
    random = np.random.default_rng(0)
    num_covered = 0
    num_trials = 100
    for _ in range(num_trials):
        images = random.normal(size=50)
        runs: dict[str, dict[Cell, Floats]] = {"ours": {}, "theirs": {}}
        for draw in range(8):
            for group in runs.values():
                for generator in range(2):
                    effect = random.normal() + random.normal(scale=0.5)
                    group[Cell(draw, generator, 0)] = images + effect + random.normal(size=50)
        _, low, high = estimate(runs, difference, num_resamples=400)
        num_covered += low <= 0 <= high
    assert 0.85 <= num_covered / num_trials <= 0.99


def test_rank_correlation_equals_scipy_s() -> None:
    values = np.array([0.0, 1.0, 2.3, 3.3, 4.3])
    others = np.array([[0.1, 0.4, 0.2, 0.5, 0.5], [3.0, 2.0, 2.0, 1.0, 0.0]])
    expected = [spearmanr(values, row).statistic for row in others]
    assert rank_correlation(values, others) == pytest.approx(expected)
    assert rank_correlation(values, np.ones((1, 5))) == 0
