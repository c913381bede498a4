import pytest
import torch

from synth2_lightning.nn.perceptual import perceptual_distance


def test_value_by_hand() -> None:
    # Two positions of two channels: the first pair at a right angle, the second opposite.
    one = torch.tensor([[[[2.0, 1.0]], [[0.0, 0.0]]]])
    other = torch.tensor([[[[0.0, -3.0]], [[5.0, 0.0]]]])
    assert float(perceptual_distance([one], [other])) == pytest.approx((2 + 4) / 2)
    assert float(perceptual_distance([one, one], [other, one])) == pytest.approx(3 / 2)  # the mean over layers


def test_equal_features_have_no_distance_at_any_scale() -> None:
    features = torch.randn(2, 5, 4, 4)
    assert float(perceptual_distance([features], [features])) == 0
    assert float(perceptual_distance([features], [7 * features])) == pytest.approx(0, abs=1e-10)


def test_positions_without_features_give_no_gradient_that_is_not_finite() -> None:
    features = torch.zeros(1, 3, 2, 2, requires_grad=True)
    torch.autograd.backward(perceptual_distance([features], [torch.randn(1, 3, 2, 2)]))
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_layers_that_are_missing_on_one_side_are_refused() -> None:
    features = torch.randn(1, 3, 2, 2)
    with pytest.raises(ValueError, match="shorter"):
        perceptual_distance([features, features], [features])
