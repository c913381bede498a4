import pytest
import torch
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor

from synth2_lightning.interfaces import Resampler
from synth2_lightning.nn.neighborhood import ConvNeXtLayer, NeighborhoodResampler
from synth2_lightning.nn.perceiver import PerceiverResampler


class Rows(Resampler):
    """Returns all embeddings that it gets, so that tests can compare them."""

    num_latents = 25

    def _build(self, input_dim: int, output_dim: int) -> None:
        assert input_dim == output_dim

    def forward(self, embeddings: Tensor) -> Tensor:
        return embeddings


def _perceiver() -> Resampler:
    return PerceiverResampler(num_latents=3, depth=1, num_heads=2, num_positions=25)


def test_a_layer_equals_timms() -> None:
    ours, timms = ConvNeXtLayer(6, 3), ConvNeXtBlock(6, kernel_size=3, ls_init_value=None)
    for mine, other in zip(ours.parameters(), timms.parameters(), strict=True):
        other.data.copy_(mine.data.add_(0.1 * torch.randn_like(mine)))
    grid = torch.randn(2, 6, 4, 5)
    torch.testing.assert_close(ours(grid), timms(grid))


@pytest.mark.parametrize(("num_layers", "kernel_size", "reach"), [(1, 3, 1), (2, 3, 2), (1, 5, 2)])
def test_an_embedding_reads_the_places_around_it_and_no_others(num_layers: int, kernel_size: int, reach: int) -> None:
    resampler = NeighborhoodResampler(Rows(), num_layers, kernel_size).build(4, 6)
    embeddings = torch.randn(1, 25, 4, requires_grad=True)
    row, column = 2, 0
    resampler(embeddings).view(5, 5, 6)[row, column].sum().backward()
    assert embeddings.grad is not None
    is_read = embeddings.grad.view(5, 5, 4).abs().sum(-1) > 0
    expected = torch.zeros(5, 5, dtype=torch.bool)
    expected[row - reach : row + reach + 1, : column + reach + 1] = True
    assert is_read.tolist() == expected.tolist()


def test_every_weight_learns() -> None:
    resampler = NeighborhoodResampler(_perceiver(), num_layers=2, width=6).build(4, 8)
    visual = resampler(torch.randn(2, 25, 4))
    assert visual.shape == (2, resampler.num_latents, 8)
    visual.square().sum().backward()
    for name, weight in resampler.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_it_refuses_what_has_no_neighbors() -> None:
    with pytest.raises(ValueError, match=r"24 embeddings.*square grid"):
        NeighborhoodResampler(_perceiver()).build(4, 8)(torch.randn(2, 24, 4))
    for num_layers, kernel_size in ((0, 3), (2, 4)):
        with pytest.raises(ValueError, match=rf"num_layers={num_layers}.*kernel_size={kernel_size}"):
            NeighborhoodResampler(_perceiver(), num_layers, kernel_size)


def test_attention_is_that_of_the_inner_resampler_over_convolved_embeddings() -> None:
    resampler = NeighborhoodResampler(_perceiver(), num_layers=1).build(4, 6)
    embeddings = torch.randn(2, 25, 4)
    weights = resampler.attention(embeddings)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))
    read: list[Tensor] = []
    resampler.resampler.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    resampler(embeddings)
    assert torch.equal(weights, resampler.resampler.attention(read[0]))


def test_a_resampler_without_attention_weights_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Rows.*attention\(\).*PerceiverResampler"):
        NeighborhoodResampler(Rows(), num_layers=1).build(4, 4).attention(torch.randn(1, 25, 4))
