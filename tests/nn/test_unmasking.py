import pytest
import torch

from synth2_lightning.nn.unmasking import ConfidenceOrder, HaltonOrder


def test_noise_falls_linearly_to_nothing_and_does_not_compound() -> None:
    order, uniform = ConfidenceOrder(noise=8.0), torch.tensor([[0.9, 0.01]])
    sure = torch.tensor([[-3.0, 0.0]])
    chosen = [order.choose(sure, uniform, 1, share_left).item() for share_left in (1.0, 0.5, 0.05, 0.0)]
    assert chosen == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"ConfidenceOrder.noise is -1.0; expected 0 or more"):
        ConfidenceOrder(noise=-1.0)


def test_halton_order_guesses_only_what_it_reveals() -> None:
    assert HaltonOrder().count_asked(num_hidden=16, num_revealed=3) == 3
    assert ConfidenceOrder().count_asked(num_hidden=16, num_revealed=3) == 16
    kept = HaltonOrder().choose(torch.zeros(2, 3), torch.zeros(2, 3), num_revealed=3, share_left=0.5)
    assert kept.tolist() == [[0, 1, 2], [0, 1, 2]]
