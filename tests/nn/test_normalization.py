import torch

from synth2_lightning.nn.normalization import RMSNorm


def test_it_is_the_root_mean_square_in_the_precision_of_the_input() -> None:
    norm = RMSNorm(8)
    states = torch.randn(3, 8)
    torch.testing.assert_close(norm(states), states / states.square().mean(-1, keepdim=True).sqrt())
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(states.bfloat16()).dtype is torch.bfloat16


def test_its_gradient_is_that_of_torch() -> None:
    norm = RMSNorm(8).double()
    torch.nn.init.normal_(norm.weight)
    states = torch.randn(2, 8, 3, dtype=torch.double).transpose(1, 2).requires_grad_()  # not contiguous, as heads are
    inputs = states, norm.weight
    assert torch.autograd.gradcheck(lambda states, _: norm(states), inputs)
    upstream = torch.randn(2, 3, 8, dtype=torch.double)
    expected = torch.nn.functional.rms_norm(states, (8,), norm.weight)
    torch.testing.assert_close(norm(states), expected)
    slopes, wanted = (torch.autograd.grad(out, inputs, upstream) for out in (norm(states), expected))
    torch.testing.assert_close(slopes, wanted)


def test_half_precision_is_summed_in_single() -> None:
    norm = RMSNorm(4096)
    states = torch.full((1, 4096), 0.1, dtype=torch.bfloat16)
    torch.testing.assert_close(norm(states), torch.ones(1, 4096, dtype=torch.bfloat16))
