import numpy as np
import pytest

from synth2_lightning.datamodules.score_weights import ExponentialWeights


def test_weights_are_exponential_in_the_standardized_score_with_mean_one() -> None:
    scores = np.array([0.0, 1.0, 2.0, 5.0], np.float32)
    weights = ExponentialWeights(temperature=2.0)(scores)
    assert weights.mean() == pytest.approx(1.0)
    ratios = np.log(weights[1:] / weights[:-1])
    assert ratios == pytest.approx(np.diff(scores) / scores.std() / 2.0, rel=1e-5)
    assert ExponentialWeights(temperature=2.0)(100 * scores - 7) == pytest.approx(weights, rel=1e-5)


def test_large_weights_are_bounded_in_order() -> None:
    scores = np.array([0.0] * 99 + [1.0], np.float32)  # the last is 9.9 standard deviations above the mean
    free, bounded = (ExponentialWeights(max_weight=bound)(scores) for bound in (1e9, 20.0))
    assert free[-1] / free[0] > 20_000
    assert bounded[-1] / bounded[0] == pytest.approx(20 / np.exp(-scores.mean() / scores.std()), rel=1e-4)
    assert bounded.mean() == pytest.approx(1.0)


def test_equal_scores_have_the_weight_one() -> None:
    assert ExponentialWeights()(np.full(3, 0.7, np.float32)).tolist() == [1.0] * 3


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"temperature": float("nan")}, {"max_weight": 0.5}])
def test_arguments_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"ExponentialWeights.*{name}={value}"):
        ExponentialWeights(**arguments)


def test_no_weight_is_zero() -> None:
    scores = np.array([0.0] + [1.0] * 999, np.float32)  # the first is 32 standard deviations below the mean
    assert ExponentialWeights(temperature=0.02)(scores).min() > 0
