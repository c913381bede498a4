import pytest
import torch

from synth2_lightning.nn.attention import attend, attention_weights


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_plain_path_equals_torchs_kernel(dtype: torch.dtype) -> None:
    queries, keys, values = (torch.randn(2, 3, length, 8).to(dtype) for length in (4, 6, 6))
    mask = torch.rand(2, 1, 4, 6) > 0.3
    mask[..., 0] = True
    for seen in (None, mask):
        expected = torch.nn.functional.scaled_dot_product_attention(
            queries.float(), keys.float(), values.float(), attn_mask=seen
        )
        tolerance = 2e-2 if dtype is torch.bfloat16 else 1e-6
        torch.testing.assert_close(attend(queries, keys, values, seen).float(), expected, atol=tolerance, rtol=0)


def test_what_is_masked_is_not_read() -> None:
    queries, keys, values = (torch.randn(1, 1, length, 8) for length in (2, 3, 3))
    mask = torch.tensor([True, True, False]).expand(1, 1, 2, 3)
    expected = attend(queries, keys[:, :, :2], values[:, :, :2])
    torch.testing.assert_close(attend(queries, keys, values, mask), expected)
    half = attend(queries.bfloat16(), keys.bfloat16(), values.bfloat16(), mask)
    assert torch.allclose(half.float(), expected, atol=2e-2)


def test_weights_are_what_is_read_with() -> None:
    queries, keys = torch.randn(2, 3, 4, 6), torch.randn(2, 3, 6, 6)
    # Values that say their own position give the weights back, head by head.
    values = torch.eye(6).expand(2, 3, 6, 6)
    weights = attention_weights(queries, keys)
    torch.testing.assert_close(weights, attend(queries, keys, values).mean(1))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4))
