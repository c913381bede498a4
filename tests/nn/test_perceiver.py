import pytest
import torch
from flamingo_pytorch import PerceiverResampler as Reference
from torch import Tensor, nn

from synth2_lightning.nn.perceiver import PerceiverLayer, PerceiverResampler


def _copy_weights(ours: PerceiverResampler, reference: Reference) -> None:
    reference.latents.data.copy_(ours.latents)
    reference.media_pos_emb.data.zero_()
    for layer, (attention, feedforward) in zip(ours.layers, reference.layers, strict=True):
        assert isinstance(layer, PerceiverLayer)
        attention.norm_media.load_state_dict(layer.norm_media.state_dict())
        attention.norm_latents.load_state_dict(layer.norm_latents.state_dict())
        attention.to_q.load_state_dict(layer.attn.to_q.state_dict())
        attention.to_kv.load_state_dict(layer.attn.to_kv.state_dict())
        attention.to_out.load_state_dict(layer.attn.to_out.state_dict())
        feedforward.load_state_dict(layer.ff.state_dict())
    reference.norm.load_state_dict(ours.norm.state_dict())


def _shake(module: nn.Module) -> None:
    # LayerNorms start at one and zero, which would hide a missing copy.
    for parameter in module.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))


def test_it_equals_an_independent_implementation() -> None:
    ours = PerceiverResampler(num_latents=5, depth=3, num_heads=2, head_dim=8, width=16, num_positions=7).build(24, 10)
    _shake(ours)
    reference = Reference(dim=16, depth=3, dim_head=8, heads=2, num_latents=5)
    _copy_weights(ours, reference)
    embeddings = torch.randn(4, 7, 24)
    expected = ours.output_proj(reference(ours.input_proj(embeddings) + ours.position_embeddings).squeeze(1))
    torch.testing.assert_close(ours(embeddings), expected, atol=1e-5, rtol=0)


def test_without_positions_the_order_of_the_embeddings_does_not_matter() -> None:
    embeddings = torch.randn(2, 6, 8)
    unordered = PerceiverResampler(num_latents=3, depth=1).build(8, 16)
    torch.testing.assert_close(unordered(embeddings), unordered(embeddings.flip(1)))
    ordered = PerceiverResampler(num_latents=3, depth=1, num_positions=6).build(8, 16)
    _shake(ordered)
    assert not torch.allclose(ordered(embeddings), ordered(embeddings.flip(1)), atol=1e-3)


@pytest.mark.parametrize("num_positions", [0, 5])
def test_every_weight_learns_and_checkpointing_changes_no_gradient(num_positions: int) -> None:
    kept, recomputed = (
        PerceiverResampler(3, 2, num_heads=2, num_positions=num_positions, checkpoint_activations=recomputes).build(
            8, 12
        )
        for recomputes in (False, True)
    )
    recomputed.load_state_dict(kept.state_dict())
    embeddings = torch.randn(2, 5, 8)
    for resampler in (kept, recomputed):
        resampler(embeddings).square().sum().backward()
    for ours, theirs in zip(kept.parameters(), recomputed.parameters(), strict=True):
        assert ours.grad is not None
        assert ours.grad.abs().sum() > 0
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_checkpointing_keeps_less() -> None:
    def num_kept(checkpoint_activations: bool) -> int:
        sizes: list[int] = []

        def keep(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        resampler = PerceiverResampler(3, 4, checkpoint_activations=checkpoint_activations).build(8, 16)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            resampler(torch.randn(2, 5, 8))
        return sum(sizes)

    assert num_kept(True) < num_kept(False) / 2


def test_dropout_rests_in_evaluation() -> None:
    resampler = PerceiverResampler(num_latents=3, depth=1, dropout=0.5).build(8, 16)
    embeddings = torch.randn(2, 5, 8)
    assert not torch.equal(resampler(embeddings), resampler(embeddings))
    resampler.eval()
    assert torch.equal(resampler(embeddings), resampler(embeddings))


def test_it_runs_under_autocast_and_keeps_close() -> None:
    resampler = PerceiverResampler(num_latents=3, depth=2).build(8, 16)
    embeddings = torch.randn(2, 5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        half = resampler(embeddings)
    assert half.dtype is torch.bfloat16
    torch.testing.assert_close(half.float(), resampler(embeddings), atol=0.05, rtol=0.05)


def test_other_numbers_of_embeddings_are_refused_with_learned_positions() -> None:
    resampler = PerceiverResampler(num_latents=3, depth=1, num_positions=6).build(8, 16)
    with pytest.raises(ValueError, match=r"num_positions=6.* 5 .*num_tokens"):
        resampler(torch.randn(2, 5, 8))


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_latents=0.*depth=2"):
        PerceiverResampler(num_latents=0, depth=2)


def _weights(resampler: PerceiverResampler, layer: int, latents: Tensor, image: Tensor) -> Tensor:
    part = resampler.layers[layer]
    assert isinstance(part, PerceiverLayer)
    return part.weights(latents, image)


def test_attention_of_one_layer_is_that_of_its_queries_to_the_image() -> None:
    resampler = PerceiverResampler(num_latents=3, depth=1, num_heads=2, num_positions=5).build(8, 12)
    _shake(resampler)
    embeddings = torch.randn(2, 5, 8)
    image = resampler.input_proj(embeddings) + resampler.position_embeddings
    weights = _weights(resampler, 0, resampler.latents.expand(2, -1, -1), image)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))
    expected = weights[..., :5] / weights[..., :5].sum(-1, keepdim=True)  # latents do not depend on the image before
    torch.testing.assert_close(resampler.attention(embeddings), expected)


def test_attention_of_two_layers_follows_what_latents_read_of_each_other() -> None:
    resampler = PerceiverResampler(num_latents=3, depth=2, num_heads=2).build(8, 12)
    _shake(resampler)
    embeddings = torch.randn(1, 5, 8)
    image, latents = resampler.input_proj(embeddings), resampler.latents.expand(1, -1, -1)
    first = _weights(resampler, 0, latents, image)[0]
    second = _weights(resampler, 1, resampler.layers[0](latents, image), image)[0]
    # By hand, for each place: half from the previous layer, and half from this one.
    expected = torch.empty(3, 5)
    for query in range(3):
        for place in range(5):
            read = second[query, place] + sum(second[query, 5 + k] * first[k, place] / 2 for k in range(3))
            expected[query, place] = (first[query, place] / 2 + read) / 2
    expected /= expected.sum(-1, keepdim=True)
    torch.testing.assert_close(resampler.attention(embeddings)[0], expected)
