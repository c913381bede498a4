import pytest
import torch
from torch import Tensor

from synth2_lightning.decoders.cross_attention import CrossAttentionDecoder, GatedBlock
from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.nn.gated_attention import GatedCrossAttention
from synth2_lightning.types import GenerationSettings


def _decoder(source: NewLanguageModel, every: int = 1) -> CrossAttentionDecoder:
    decoder = CrossAttentionDecoder(source, every=every, num_heads=2, head_dim=8)
    decoder.load()
    return decoder.eval()


def _gated(decoder: CrossAttentionDecoder) -> list[GatedBlock]:
    return [part for part in decoder.lm.modules() if isinstance(part, GatedBlock)]


@pytest.fixture
def visual() -> Tensor:
    return torch.randn(2, 3, 32)


def test_with_shut_gates_the_model_says_what_it_said_before(language_model: NewLanguageModel, visual: Tensor) -> None:
    torch.manual_seed(1)
    decoder = _decoder(language_model)
    torch.manual_seed(1)
    bare = language_model.build().eval()
    ids = torch.tensor([[1, 5, 6, 7], [1, 8, 9, 4]])
    with decoder.show(visual), torch.no_grad():
        assert torch.equal(decoder.lm(ids).logits, bare(ids).logits)


def test_gates_are_as_strong_as_the_states_that_they_add_to() -> None:
    loud = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 5.0}
    decoder = _decoder(NewLanguageModel(loud, "package://synth2_lightning/scenes/vocabulary"))
    first, second = (block.cross_attention.scale for block in _gated(decoder))
    assert 2 < first < second  # word and place, half of them within 0.67 * 5 * sqrt(2); then the first block's part
    quiet = _decoder(
        NewLanguageModel(loud | {"initializer_range": 0.02}, "package://synth2_lightning/scenes/vocabulary")
    )
    assert [block.cross_attention.scale for block in _gated(quiet)] == [1.0, 1.0]


def test_every_kth_block_looks(gpt2: NewLanguageModel) -> None:
    assert len(_gated(_decoder(gpt2, every=1))) == 2
    decoder = _decoder(gpt2, every=2)
    assert [isinstance(block, GatedBlock) for block in decoder.lm.transformer.h] == [False, True]


def test_nothing_stays_bound_after_a_call_or_an_error(gpt2: NewLanguageModel, visual: Tensor) -> None:
    decoder = _decoder(gpt2)
    decoder.loss(visual, ["a circle", "a dog"])
    decoder.generate(visual, GenerationSettings(max_new_tokens=2, num_beams=2))
    assert all(block.visual is None for block in _gated(decoder))
    with pytest.raises(ValueError, match="2 texts"), decoder.show(visual):
        raise ValueError("2 texts")
    assert all(block.visual is None for block in _gated(decoder))


def test_beams_see_the_picture_of_their_row(gpt2: NewLanguageModel, visual: Tensor) -> None:
    decoder = _decoder(gpt2)
    ids = torch.randint(1, 9, (6, 3))
    for block in _gated(decoder):
        block.cross_attention.attention_gate.data.fill_(1.0)
    with decoder.show(visual.repeat_interleave(3, dim=0)):
        expected = decoder.lm(ids).logits
    with decoder.show(visual) as prefix:
        assert prefix.shape == (2, 0, 32)
        torch.testing.assert_close(decoder.lm(ids).logits, expected)
        with torch.no_grad():  # what was made of the picture is kept between calls
            torch.testing.assert_close(decoder.lm(ids).logits, expected)
            decoder.keep_pictures(torch.tensor([1]))
            torch.testing.assert_close(decoder.lm(ids[3:]).logits, expected[3:])


def test_a_call_without_picture_is_refused(gpt2: NewLanguageModel) -> None:
    with pytest.raises(RuntimeError, match=r"called without a picture; expected a call of the decoder"):
        _decoder(gpt2).lm(torch.tensor([[1, 2]]))


@pytest.mark.parametrize("every", [0, 3])
def test_a_step_that_never_looks_is_refused(gpt2: NewLanguageModel, every: int) -> None:
    with pytest.raises(ValueError, match=rf"every is {every}; expected 1 to 2, the number of the language model's"):
        CrossAttentionDecoder(gpt2, every=every)


@torch.no_grad()
def test_words_look_as_much_as_gates_are_open(gpt2: NewLanguageModel) -> None:
    decoder = CrossAttentionDecoder(gpt2, every=1, num_heads=2, head_dim=16)
    decoder.load()
    gates = [part for part in decoder.lm.modules() if isinstance(part, GatedCrossAttention)]
    for gate, opening in zip(gates, (0.5, 0.0), strict=True):
        gate.attention_gate.fill_(opening)
    visual = torch.randn(1, 3, 32)
    [weights] = decoder.eval().attention(visual, ["a red circle"])
    torch.testing.assert_close(weights.sum(-1), torch.ones(3))
    # The second gate is shut, and the first one sees word embeddings as they are.
    embeds = decoder.lm.get_input_embeddings()(decoder.captions.encode(["a red circle"], None).inputs)
    states = embeds + decoder.lm.transformer.wpe(torch.arange(embeds.shape[1]))
    torch.testing.assert_close(weights, gates[0].weights(states, visual)[0, :3])  # without that of the end


@torch.no_grad()
def test_gates_that_are_all_shut_have_looked_nowhere(gpt2: NewLanguageModel) -> None:
    decoder = CrossAttentionDecoder(gpt2, every=1, num_heads=2, head_dim=16)
    decoder.load()
    with pytest.raises(TypeError, match="All 2 gates of the CrossAttentionDecoder are shut"):
        decoder.attention(torch.randn(1, 3, 32), ["a red circle"])
