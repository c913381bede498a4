import pytest
import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from synth2_lightning.nn import cpu_kernels
from synth2_lightning.nn.cpu_kernels import attention, negative_log_likelihood


@pytest.mark.parametrize("has_mask", [False, True])
def test_attention_in_bfloat16_and_its_gradients_are_as_exact_as_those_of_torch(has_mask: bool) -> None:
    queries, keys, values = wide = tuple(torch.randn(3, 2, num, 16, requires_grad=True) for num in (5, 7, 7))
    mask = torch.arange(7).expand(3, 1, 1, 7) < torch.tensor([7, 4, 1]).view(3, 1, 1, 1) if has_mask else None
    expected = scaled_dot_product_attention(queries, keys, values, mask)
    weights = torch.randn_like(expected)
    gradients = torch.autograd.grad((expected * weights).sum(), wide)
    queries, keys, values = narrow = tuple(part.detach().bfloat16().requires_grad_() for part in wide)
    ours = attention(queries, keys, values, mask)
    assert ours.dtype is torch.bfloat16
    assert "ScaledDotProduct" not in type(ours.grad_fn).__name__
    torch.testing.assert_close(ours.float(), expected, atol=0.04, rtol=0.02)
    for gradient, reference in zip(torch.autograd.grad((ours * weights).sum(), narrow), gradients, strict=True):
        torch.testing.assert_close(gradient.float(), reference, atol=0.06, rtol=0.02)


def test_attention_under_autocast_is_not_that_of_torch() -> None:
    x = torch.randn(1, 1, 3, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert "ScaledDotProduct" not in type(attention(x, x, x).grad_fn).__name__
    assert "ScaledDotProduct" in type(attention(x, x, x).grad_fn).__name__


def test_attention_is_that_of_torch_for_long_sequences_and_without_gradients() -> None:
    queries = torch.randn(1, 1, cpu_kernels._MAX_SCORES, 4, dtype=torch.bfloat16, requires_grad=True)
    keys = torch.randn(1, 1, 2, 4, dtype=torch.bfloat16)
    assert "ScaledDotProduct" in type(attention(queries, keys, keys).grad_fn).__name__
    with torch.no_grad():
        short = queries[:, :, :3]
        torch.testing.assert_close(
            attention(short, keys, keys), scaled_dot_product_attention(short, keys, keys), rtol=0, atol=0
        )


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
