import torch
from torch.nn.functional import scaled_dot_product_attention

from synth2_lightning.nn.attention import attention_weights


def test_weights_are_those_of_torchs_attention() -> None:
    queries, keys = torch.randn(2, 3, 4, 6), torch.randn(2, 3, 6, 6)
    # With the identity as values, the outputs of each head are its weights.
    values = torch.eye(6).expand(2, 3, 6, 6)
    weights = attention_weights(queries, keys)
    torch.testing.assert_close(weights, scaled_dot_product_attention(queries, keys, values).mean(1))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4))
