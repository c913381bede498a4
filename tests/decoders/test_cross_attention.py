from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from synth2_lightning.decoders.cross_attention import CrossAttentionDecoder, GatedBlock
from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.nn.gated_attention import GatedCrossAttention
from synth2_lightning.types import GenerationSettings

LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2}


def _decoder(source: NewLanguageModel, cross_attn_every_n_layers: int = 1) -> CrossAttentionDecoder:
    decoder = CrossAttentionDecoder(
        source, cross_attn_every_n_layers=cross_attn_every_n_layers, num_heads=2, head_dim=8
    )
    decoder.load()
    return decoder.eval()


def _gated(decoder: CrossAttentionDecoder) -> list[GatedBlock]:
    return [part for part in decoder.lm.modules() if isinstance(part, GatedBlock)]


@torch.no_grad()
def _open_gates(decoder: CrossAttentionDecoder) -> None:
    for block in _gated(decoder):
        block.gated_cross_attn_layer.attn_gate.fill_(1.0)
    # Untied from the input embeddings, which would repeat the last token.
    head = torch.nn.Linear(32, decoder.lm.get_input_embeddings().num_embeddings, bias=False)
    decoder.lm.set_output_embeddings(head)


@pytest.fixture
def visual() -> Tensor:
    return torch.randn(2, 3, 32)


def test_with_zero_gates_the_logits_are_those_of_the_model_alone(
    language_model: NewLanguageModel, visual: Tensor
) -> None:
    torch.manual_seed(1)
    decoder = _decoder(language_model)
    torch.manual_seed(1)
    bare = language_model.build().eval()
    ids = torch.tensor([[1, 5, 6, 7], [1, 8, 9, 4]])
    with decoder.visual_context(visual), torch.no_grad():
        assert torch.equal(decoder.lm(ids).logits, bare(ids).logits)


def test_measuring_hidden_states_keeps_the_mode_and_leaves_out_large_channels(gpt2: NewLanguageModel) -> None:
    lm = gpt2.build().train()
    lm.transformer.wte.weight.data[:, :3] *= 1e4
    CrossAttentionDecoder(gpt2, cross_attn_every_n_layers=1, num_heads=2, head_dim=8).attach(lm)
    assert all(part.training for part in lm.modules())
    assert lm.transformer.h[0].gated_cross_attn_layer.scale == 1.0


def test_gates_are_scaled_by_the_hidden_states_that_they_add_to() -> None:
    large = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 5.0}
    decoder = _decoder(NewLanguageModel(large, "package://synth2_lightning/scenes/vocabulary"))
    first, second = (block.gated_cross_attn_layer.scale for block in _gated(decoder))
    assert (
        2 < first < second
    )  # token and position, half of them within 0.67 * 5 * sqrt(2); then the first block's output
    small = _decoder(
        NewLanguageModel(large | {"initializer_range": 0.02}, "package://synth2_lightning/scenes/vocabulary")
    )
    assert [block.gated_cross_attn_layer.scale for block in _gated(small)] == [1.0, 1.0]


def test_every_kth_block_has_cross_attention(gpt2: NewLanguageModel) -> None:
    assert len(_gated(_decoder(gpt2, cross_attn_every_n_layers=1))) == 2
    decoder = _decoder(gpt2, cross_attn_every_n_layers=2)
    assert [isinstance(block, GatedBlock) for block in decoder.lm.transformer.h] == [False, True]


def test_no_context_stays_active_after_a_call_or_an_error(gpt2: NewLanguageModel, visual: Tensor) -> None:
    decoder = _decoder(gpt2)
    decoder.loss(visual, ["a circle", "a dog"])
    decoder.generate(visual, GenerationSettings(max_new_tokens=2, num_beams=2))
    with pytest.raises(ValueError, match="2 texts"), decoder.visual_context(visual):
        raise ValueError("2 texts")
    with pytest.raises(RuntimeError, match=r"without visual tokens.*visual_context"):
        decoder.lm(torch.tensor([[1, 2]]))


def test_beams_attend_to_the_image_of_their_text(gpt2: NewLanguageModel, visual: Tensor) -> None:
    decoder = _decoder(gpt2)
    ids = torch.randint(1, 9, (6, 3))
    _open_gates(decoder)
    with decoder.visual_context(visual.repeat_interleave(3, dim=0)):
        expected = decoder.lm(ids).logits
    with decoder.visual_context(visual) as context:
        assert context.prefix.shape == (2, 0, 32)
        torch.testing.assert_close(decoder.lm(ids).logits, expected)
        with torch.no_grad():  # keys and values of the visual tokens are cached between calls
            torch.testing.assert_close(decoder.lm(ids).logits, expected)
            context.select_images(torch.tensor([1]))
            torch.testing.assert_close(decoder.lm(ids[3:]).logits, expected[3:])


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2},
        {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48} | LAYERS,
        # Models that pass no further arguments to their blocks.
        {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 2},
        {"model_type": "falcon", "hidden_size": 32} | LAYERS,
        {"model_type": "mpt", "d_model": 32, "n_layers": 2, "n_heads": 2},
    ],
    ids=lambda config: str(config["model_type"]),
)
@pytest.mark.parametrize("settings", [{"num_beams": 3}, {"do_sample": True}], ids=["beams", "sampling"])
def test_visual_tokens_reach_the_blocks_of_any_model(config: dict[str, Any], settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    decoder = _decoder(NewLanguageModel(config, "package://synth2_lightning/scenes/vocabulary"))
    _open_gates(decoder)
    visual = torch.randn(4, 3, 32)
    made = GenerationSettings(max_new_tokens=8, **settings)
    torch.manual_seed(1)
    texts = decoder.generate(visual, made)
    torch.manual_seed(1)
    assert decoder.generate(visual, made) == texts
    torch.manual_seed(1)
    assert decoder.generate(20 * visual.flip(0), made) != texts


def test_concurrent_calls_do_not_mix_their_images(gpt2: NewLanguageModel) -> None:
    decoder = _decoder(gpt2)
    _open_gates(decoder)
    visuals = 20 * torch.randn(4, 2, 3, 32)
    settings = GenerationSettings(max_new_tokens=6, num_beams=2)
    alone = [decoder.generate(visual, settings) for visual in visuals]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda visual: decoder.generate(visual, settings), visuals))
    assert together == alone
    assert len(set(map(tuple, alone))) > 2


@pytest.mark.parametrize("cross_attn_every_n_layers", [0, 3])
def test_a_step_without_cross_attention_is_refused(gpt2: NewLanguageModel, cross_attn_every_n_layers: int) -> None:
    with pytest.raises(ValueError, match=rf"every_n_layers is {cross_attn_every_n_layers}.*1 to 2"):
        CrossAttentionDecoder(gpt2, cross_attn_every_n_layers=cross_attn_every_n_layers)


@torch.no_grad()
def test_attention_is_weighted_by_the_gates(gpt2: NewLanguageModel) -> None:
    decoder = CrossAttentionDecoder(gpt2, cross_attn_every_n_layers=1, num_heads=2, head_dim=16)
    decoder.load()
    gates = [part for part in decoder.lm.modules() if isinstance(part, GatedCrossAttention)]
    for gate, opening in zip(gates, (0.5, 0.0), strict=True):
        gate.attn_gate.fill_(opening)
    visual = torch.randn(1, 3, 32)
    [weights] = decoder.eval().attention(visual, ["a red circle"])
    torch.testing.assert_close(weights.sum(-1), torch.ones(3))
    # The second gate is zero, and the input of the first is the token embeddings.
    embeds = decoder.lm.get_input_embeddings()(decoder.caption_tokenizer.encode(["a red circle"], None).inputs)
    states = embeds + decoder.lm.transformer.wpe(torch.arange(embeds.shape[1]))
    torch.testing.assert_close(weights, gates[0].weights(states, visual)[0, :3])  # without the end-of-text token
    signs = []
    for opening in (0.5, -0.5):
        gates[1].attn_gate.fill_(opening)
        signs += decoder.attention(visual, ["a red circle"])
    torch.testing.assert_close(*signs)


@torch.no_grad()
def test_attention_with_zero_gates_is_refused(gpt2: NewLanguageModel) -> None:
    decoder = CrossAttentionDecoder(gpt2, cross_attn_every_n_layers=1, num_heads=2, head_dim=16)
    decoder.load()
    with pytest.raises(TypeError, match="2 gates"):
        decoder.attention(torch.randn(1, 3, 32), ["a red circle"])
