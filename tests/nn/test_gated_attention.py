import torch
from torch.nn.functional import layer_norm

from synth2_lightning.nn.gated_attention import GatedCrossAttention


def _layer(attn_gate: float, ff_gate: float) -> GatedCrossAttention:
    layer = GatedCrossAttention(width=12, visual_dim=6, num_heads=2, head_dim=4)
    layer.attn_gate.data.fill_(attn_gate)
    layer.ff_gate.data.fill_(ff_gate)
    return layer


def test_shut_gates_change_nothing_and_can_open() -> None:
    layer = _layer(0.0, 0.0)
    words = torch.randn(2, 5, 12)
    seen = layer(words, torch.randn(2, 3, 6))
    assert torch.equal(seen, words)
    seen.square().sum().backward()
    assert layer.attn_gate.grad is not None
    assert layer.attn_gate.grad.abs() > 0


def test_it_is_attention_and_feedforward_behind_tanh_gates() -> None:
    layer = _layer(0.7, -0.4)
    words, visual = torch.randn(1, 1, 12), torch.randn(1, 1, 6)
    # One visual token gets all the attention, so that the attention output is its value.
    values = (visual @ layer.attn.to_kv.weight.T)[..., 8:]
    read = words + torch.tanh(torch.tensor(0.7)) * (values @ layer.attn.to_out.weight.T)
    expected = read + torch.tanh(torch.tensor(-0.4)) * layer.ff(read)
    torch.testing.assert_close(layer(words, visual), expected)


def test_what_comes_through_the_gates_is_scaled() -> None:
    layer = _layer(0.7, 0.0)
    words, visual = torch.randn(2, 5, 12), torch.randn(2, 3, 6)
    seen = layer(words, visual) - words
    layer.scale = 3.0
    torch.testing.assert_close(layer(words, visual) - words, 3 * seen, atol=1e-5, rtol=1e-5)


def test_queries_are_normalized_words() -> None:
    layer = _layer(1.0, 0.0)
    words, visual = torch.randn(2, 4, 12), torch.randn(2, 3, 6)
    louder = layer(words * 3, visual) - words * 3
    torch.testing.assert_close(louder, layer(words, visual) - words, atol=1e-4, rtol=0)
    torch.testing.assert_close(layer.norm(words), layer_norm(words, (12,)))


def test_words_of_half_precision_stay_so() -> None:
    layer = _layer(1.0, 1.0)
    words, visual = torch.randn(2, 4, 12).bfloat16(), torch.randn(2, 3, 6)
    seen = layer(words, visual)
    assert seen.dtype is torch.bfloat16
    torch.testing.assert_close(seen.float(), layer(words.float(), visual), atol=0.05, rtol=0.02)


def test_weights_are_the_attention_of_the_words() -> None:
    layer = _layer(0.7, 0.0)
    words, visual = torch.randn(1, 2, 12), torch.randn(1, 3, 6)
    weights = layer.weights(words, visual)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2))
    queries = layer.attn.to_q(layer_norm(words, (12,), layer.norm.weight, layer.norm.bias)).view(2, 2, 4)
    keys = layer.attn.to_kv(visual)[..., :8].view(3, 2, 4)
    expected = torch.stack([(queries[:, head] @ keys[:, head].T / 2).softmax(-1) for head in range(2)]).mean(0)
    torch.testing.assert_close(weights[0], expected)
