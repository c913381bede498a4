import torch
from einops import rearrange
from torch.nn.functional import scaled_dot_product_attention

from synth2_lightning.nn.attention import CrossAttention


def test_weights_are_those_of_torchs_attention() -> None:
    attention = CrossAttention(12, 5, num_heads=3, head_dim=6)
    states, context = torch.randn(2, 4, 12), torch.randn(2, 6, 5)
    queries = rearrange(attention.to_q(states), "b n (h c) -> b h n c", h=3)
    keys, _ = attention.keys_values(context)
    # With the identity as values, the outputs of each head are its weights.
    values = torch.eye(6).expand(2, 3, 6, 6)
    weights = attention.weights(states, keys)
    torch.testing.assert_close(weights, scaled_dot_product_attention(queries, keys, values).mean(1))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4))
