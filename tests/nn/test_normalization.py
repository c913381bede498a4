import torch

from synth2_lightning.nn.normalization import RMSNorm


def test_it_is_the_root_mean_square_in_the_precision_of_the_input() -> None:
    norm = RMSNorm(8)
    states = torch.randn(3, 8)
    torch.testing.assert_close(norm(states), states / states.square().mean(-1, keepdim=True).sqrt())
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(states.bfloat16()).dtype is torch.bfloat16
