import torch
from torch.nn.functional import gelu, layer_norm

from synth2_lightning.nn.feedforward import FeedForward


def test_it_is_norm_linear_gelu_linear_four_times_as_wide() -> None:
    layer = FeedForward(6)
    x = torch.randn(2, 3, 6)
    first, second = (parameter for parameter in layer.parameters() if parameter.ndim == 2)
    assert first.shape == (24, 6)
    torch.testing.assert_close(layer(x), gelu(layer_norm(x, (6,)) @ first.T) @ second.T)
