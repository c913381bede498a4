import pytest
import torch

from synth2_lightning.nn.unmasking import ConfidenceOrder, HaltonOrder


def test_noise_falls_linearly_to_nothing_and_does_not_compound() -> None:
    order, uniform = ConfidenceOrder(noise=8.0), torch.tensor([[0.9, 0.01]])
    sure = torch.tensor([[-3.0, 0.0]])
    chosen = [int(order.rank(sure, uniform, fraction_left)[0, 0]) for fraction_left in (1.0, 0.5, 0.05, 0.0)]
    assert chosen == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"ConfidenceOrder\.noise.* -1\.0"):
        ConfidenceOrder(noise=-1.0)


def test_halton_order_predicts_only_what_it_reveals() -> None:
    assert HaltonOrder().num_candidates(num_masked=16, num_unmasked=3) == 3
    assert ConfidenceOrder().num_candidates(num_masked=16, num_unmasked=3) == 16
    kept = HaltonOrder().rank(torch.zeros(2, 3), torch.zeros(2, 3), fraction_left=0.5)
    assert kept.tolist() == [[0, 1, 2], [0, 1, 2]]
