import pytest
import torch
from torch.nn.functional import cross_entropy

from synth2_lightning.nn import cpu_kernels
from synth2_lightning.nn.cpu_kernels import negative_log_likelihood


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_rows", [0, 1, 7])
def test_loss_and_gradient_are_those_of_cross_entropy(dtype: torch.dtype, num_rows: int) -> None:
    vocabulary = 2**19  # two rows at a time
    assert len(list(cpu_kernels._slices(torch.empty(7, vocabulary)))) == 4
    logits = (5 * torch.randn(num_rows, vocabulary)).to(dtype).requires_grad_()
    targets = torch.randint(vocabulary, (num_rows,))
    weights = torch.rand(num_rows)
    ours = negative_log_likelihood(logits, targets)
    expected = cross_entropy(logits.float(), targets, reduction="none")
    assert ours.dtype is torch.float32
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(ours @ weights, logits)
    (reference,) = torch.autograd.grad(expected @ weights, logits)
    torch.testing.assert_close(gradient, reference, atol=1e-6, rtol=1e-2 if dtype is torch.bfloat16 else 1e-4)


def test_likelihoods_sum_to_one_even_of_large_logits() -> None:
    logits = torch.tensor([[1000.0, 999.0, -1000.0]]).expand(3, 3)
    losses = negative_log_likelihood(logits, torch.arange(3))
    torch.testing.assert_close(losses.neg().exp().sum(), torch.tensor(1.0), atol=1e-3, rtol=0)
