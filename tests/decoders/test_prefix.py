from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from synth2_lightning.decoders.language_model import NewLanguageModel, PretrainedLanguageModel
from synth2_lightning.decoders.prefix import PrefixDecoder
from synth2_lightning.decoders.tokens import CaptionTokenizer
from synth2_lightning.types import GenerationSettings


@torch.no_grad()
def test_visual_tokens_have_the_scale_of_token_embeddings(language_model: NewLanguageModel) -> None:
    decoder = PrefixDecoder(language_model)
    decoder.load()
    words = decoder.lm.get_input_embeddings()(torch.arange(len(language_model.tokenizer)))
    with decoder.visual_context(1000 * torch.randn(3, 4, 32) + 7) as context:
        assert context.prefix.std() == pytest.approx(float(words.std()), rel=0.1)
        assert abs(float(context.prefix.mean())) < 0.1 * float(words.std())


def test_only_the_norm_is_trained_with_a_frozen_model(llama: NewLanguageModel, tmp_path: Path) -> None:
    llama.build().save_pretrained(tmp_path)
    llama.tokenizer.save_pretrained(tmp_path)
    decoder = PrefixDecoder(PretrainedLanguageModel(str(tmp_path)))
    decoder.load()
    trainable = [name for name, parameter in decoder.named_parameters() if parameter.requires_grad]
    assert trainable == ["norm.weight", "norm.bias"]


@torch.no_grad()
def test_attention_of_a_word_is_that_of_the_position_that_predicts_it(language_model: NewLanguageModel) -> None:
    decoder = PrefixDecoder(language_model)
    decoder.load()
    kernel = decoder.lm.config._attn_implementation
    visual = torch.randn(2, 3, 32)
    first, second = decoder.eval().attention(visual, ["a red circle", "two green triangles on the beach"])
    assert (first.shape, second.shape) == ((3, 3), (6, 3))
    assert decoder.lm.config._attn_implementation == kernel
    for weights in (first, second):
        torch.testing.assert_close(weights.sum(-1), torch.ones(len(weights)))
    # By hand: position 3 holds the beginning-of-text token and predicts the first word.
    ids = decoder.caption_tokenizer.encode(["a red circle"], None).inputs
    decoder.lm.set_attn_implementation("eager")
    with decoder.visual_context(visual[:1]) as context:
        embeds = torch.cat([context.prefix, decoder.lm.get_input_embeddings()(ids)], dim=1)
        layers = decoder.lm(inputs_embeds=embeds, output_attentions=True).attentions
    predicting = torch.stack(layers)[:, 0, :, 3, :3].mean((0, 1))
    torch.testing.assert_close(first[0], predicting / predicting.sum(), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_word_that_has_no_token_of_its_own_has_no_attention(
    language_model: NewLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = PrefixDecoder(language_model)
    decoder.load()
    monkeypatch.setattr(CaptionTokenizer, "word_indices", lambda *_: [[1, 1, 2]])
    [weights] = decoder.eval().attention(torch.randn(1, 3, 32), ["a red circle"])
    torch.testing.assert_close(weights.sum(-1), torch.tensor([0.0, 1.0, 1.0]))


@torch.no_grad()
def test_a_language_model_without_attention_weights_is_refused(gpt2: NewLanguageModel) -> None:
    decoder = PrefixDecoder(gpt2)
    decoder.load()
    plain = decoder.lm.forward
    decoder.lm.forward = lambda **words: SimpleNamespace(attentions=None) if "output_attentions" in words else plain()
    with pytest.raises(TypeError, match=r"GPT2LMHeadModel.*attention"):
        decoder.attention(torch.randn(1, 3, 32), ["a circle"])


@pytest.mark.slow
@pytest.mark.long
def test_visual_tokens_can_be_trained_for_a_real_language_model_with_a_prompt() -> None:
    source = PretrainedLanguageModel("weights://smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf")
    try:
        tokenizer = source.tokenizer
    except OSError as error:
        pytest.skip(f"the weights cannot be had here: {error}")
    assert tokenizer.eos_token == "<|im_end|>"
    torch.manual_seed(0)
    decoder = PrefixDecoder(source, prompt="A photo of")
    decoder.load()
    visual = torch.nn.Parameter(torch.randn(2, 4, decoder.embed_dim))
    texts = ["a red circle.", "two dogs on a beach."]
    optimizer = torch.optim.Adam([visual], lr=0.1)
    for _ in range(25):
        optimizer.zero_grad()
        loss = decoder.loss(visual, texts).mean()
        torch.autograd.backward(loss)
        optimizer.step()
    assert decoder.generate(visual, GenerationSettings(max_new_tokens=10)) == texts
    assert decoder.generate(visual, GenerationSettings(max_new_tokens=10, num_beams=2)) == texts


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "mistral", "sliding_window": 4, **SIZES},
        {"model_type": "gemma2", "sliding_window": 4, **SIZES},
        {"model_type": "gemma3_text", "sliding_window": 4, **SIZES},
        {"model_type": "gpt_oss", "sliding_window": 4, "num_local_experts": 2, "num_experts_per_tok": 1, **SIZES},
        {"model_type": "gpt_neo", "hidden_size": 32, "num_layers": 2, "num_heads": 2, "window_size": 4}
        | {"attention_types": [[["global", "local"], 1]]},
        {"model_type": "mpt", "d_model": 32, "n_layers": 2, "n_heads": 2},
        {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    ],
    ids=lambda config: str(config["model_type"]),
)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_caption_is_the_same_alone_and_beside_longer_prompts(config: dict[str, Any], num_beams: int) -> None:
    torch.manual_seed(0)
    decoder = PrefixDecoder(NewLanguageModel(config, "package://synth2_lightning/scenes/vocabulary"))
    decoder.load()
    for parameter in decoder.lm.parameters():
        parameter.data.mul_(3.0 if parameter.ndim > 1 else 1.0)  # otherwise rounding would decide
    visual = torch.randn(4, 6, decoder.embed_dim)
    prompts = ["a", "a big red circle and a", "a red", "three small blue squares below a large"]
    settings = GenerationSettings(max_new_tokens=10, num_beams=num_beams)
    alone = [decoder.eval().generate(visual[row, None], settings, [prompts[row]])[0] for row in range(4)]
    assert decoder.generate(visual, settings, prompts) == alone
    assert len(set(alone)) > 2
