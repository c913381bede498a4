"""Tests of both decoders over every architecture of the tiny language models."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from synth2_lightning.decoders import causal
from synth2_lightning.decoders.causal import CausalDecoder
from synth2_lightning.decoders.cross_attention import CrossAttentionDecoder, GatedBlock
from synth2_lightning.decoders.language_model import LanguageModelSource, NewLanguageModel, PretrainedLanguageModel
from synth2_lightning.decoders.prefix import PrefixDecoder
from synth2_lightning.decoders.tokens import TargetTokens
from synth2_lightning.types import GenerationSettings

CAPTIONS = ("a red circle above a small blue square", "two green triangles", "a circle")
PROMPTS = ("a", "", "on the beach a man")
SETTINGS = [
    GenerationSettings(max_new_tokens=6),
    GenerationSettings(max_new_tokens=6, num_beams=3),
    GenerationSettings(max_new_tokens=6, num_beams=3, repetition_penalty=1.3, no_repeat_ngram_size=2),
]

MakeDecoder = Callable[..., CausalDecoder]


def _prefix(source: LanguageModelSource, prompt: str = "", checkpoint_activations: bool = False) -> CausalDecoder:
    return PrefixDecoder(source, prompt, checkpoint_activations=checkpoint_activations)


def _cross_attention(
    source: LanguageModelSource, prompt: str = "", checkpoint_activations: bool = False
) -> CausalDecoder:
    return CrossAttentionDecoder(
        source,
        cross_attn_every_n_layers=1,
        num_heads=2,
        head_dim=8,
        prompt=prompt,
        checkpoint_activations=checkpoint_activations,
    )


@pytest.fixture(params=[_prefix, _cross_attention], ids=["prefix", "cross_attention"])
def make_decoder(request: pytest.FixtureRequest) -> MakeDecoder:
    def make(*args: object, **kwargs: object) -> CausalDecoder:
        decoder: CausalDecoder = request.param(*args, **kwargs)
        decoder.load()
        with torch.no_grad():
            for part in decoder.modules():  # open gates and large logits, otherwise all captions would be equal
                if isinstance(part, GatedBlock):
                    part.gated_cross_attn_layer.attn_gate.fill_(1.0)
                    part.gated_cross_attn_layer.ff_gate.fill_(0.5)
            decoder.lm.get_output_embeddings().weight.mul_(20)
        return decoder

    return make


@pytest.fixture
def decoder(make_decoder: MakeDecoder, language_model: NewLanguageModel) -> CausalDecoder:
    return make_decoder(language_model).eval()


@pytest.fixture
def visual() -> Tensor:
    return torch.randn(3, 4, 32)


def test_the_loss_is_that_of_transformers_for_the_same_input(decoder: CausalDecoder, visual: Tensor) -> None:
    loss = decoder.loss(visual, CAPTIONS, PROMPTS)
    for row in range(3):
        tokens = decoder.caption_tokenizer.encode(CAPTIONS[row : row + 1], PROMPTS[row : row + 1])
        end = torch.tensor([[decoder.caption_tokenizer.eos_id]])
        ids = torch.cat([tokens.inputs, end], dim=1)
        with decoder.visual_context(visual[row : row + 1]) as context:
            words = decoder.lm.get_input_embeddings()(ids)
            labels = ids.masked_fill(~pad(tokens.is_target, (1, 0)), -100)
            labels = pad(labels, (context.prefix.shape[1], 0), value=-100)
            expected = decoder.lm(inputs_embeds=torch.cat([context.prefix, words], dim=1), labels=labels).loss
        torch.testing.assert_close(loss.sums[row] / loss.counts[row], expected, atol=1e-5, rtol=1e-5)


def test_the_loss_of_a_row_is_independent_of_other_rows(decoder: CausalDecoder, visual: Tensor) -> None:
    loss = decoder.loss(visual, CAPTIONS, PROMPTS)
    alone = [decoder.loss(visual[i : i + 1], CAPTIONS[i : i + 1], PROMPTS[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(loss.sums, torch.cat([one.sums for one in alone]), atol=1e-4, rtol=1e-5)
    assert loss.counts.tolist() == [9, 4, 3]


@pytest.mark.parametrize("settings", SETTINGS, ids=["greedy", "beams", "penalties"])
def test_a_caption_in_a_batch_is_the_caption_alone(
    decoder: CausalDecoder, visual: Tensor, settings: GenerationSettings
) -> None:
    together = decoder.generate(visual, settings, PROMPTS)
    alone = [decoder.generate(visual[i : i + 1], settings, PROMPTS[i : i + 1])[0] for i in range(3)]
    assert together == alone
    assert len(set(together)) > 1


def test_greedy_captions_are_the_likeliest_word_after_word(make_decoder: MakeDecoder, llama: NewLanguageModel) -> None:
    decoder = make_decoder(llama).eval()
    visual = torch.randn(1, 4, 32)
    (caption,) = decoder.generate(visual, GenerationSettings(max_new_tokens=5))
    ids = [decoder.caption_tokenizer.bos_id]
    unknown = llama.tokenizer.unk_token_id
    with torch.no_grad(), decoder.visual_context(visual) as context:
        for _ in range(5):
            words = decoder.lm.get_input_embeddings()(torch.tensor([ids]))
            logits = decoder.lm(inputs_embeds=torch.cat([context.prefix, words], dim=1)).logits[0, -1]
            logits[unknown] = -torch.inf
            ids.append(int(logits.argmax()))
            if ids[-1] == decoder.caption_tokenizer.eos_id:
                break
    assert [caption] == decoder.caption_tokenizer.decode(torch.tensor([ids]))


def test_captions_depend_on_the_image_and_gradients_reach_it(decoder: CausalDecoder, visual: Tensor) -> None:
    visual.requires_grad_()
    loss = decoder.loss(visual, CAPTIONS)
    torch.autograd.backward(loss.mean())
    assert visual.grad is not None
    assert (visual.grad.abs().sum((1, 2)) > 0).all()
    assert not torch.allclose(loss.sums, decoder.loss(visual.flip(0), CAPTIONS).sums, atol=1e-3)


def test_checkpointing_changes_no_gradient(make_decoder: MakeDecoder, language_model: NewLanguageModel) -> None:
    gradients = []
    for checkpoint_activations in (False, True):
        torch.manual_seed(1)
        decoder = make_decoder(language_model, checkpoint_activations=checkpoint_activations).eval()
        visual = torch.randn(3, 4, 32, requires_grad=True)
        torch.autograd.backward(decoder.loss(visual, CAPTIONS).mean())
        gradients.append([visual.grad, *(parameter.grad for parameter in decoder.parameters())])
    assert len(gradients[0]) > 10
    torch.testing.assert_close(gradients[0], gradients[1])


def test_checkpointing_changes_no_name(make_decoder: MakeDecoder, language_model: NewLanguageModel) -> None:
    plain, checkpointed = (make_decoder(language_model, checkpoint_activations=setting) for setting in (False, True))
    assert list(checkpointed.state_dict()) == list(plain.state_dict())


def test_checkpointing_keeps_less(make_decoder: MakeDecoder, llama: NewLanguageModel) -> None:
    kept: dict[bool, int] = {}
    for checkpoint_activations in (False, True):
        decoder = make_decoder(llama, checkpoint_activations=checkpoint_activations)
        sizes: list[int] = []

        def keep(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            decoder.loss(torch.randn(3, 4, 32, requires_grad=True), CAPTIONS)
        kept[checkpoint_activations] = sum(sizes)
    assert kept[True] < kept[False] / 2


def test_a_frozen_model_stays_in_evaluation_and_is_not_trained(
    make_decoder: MakeDecoder, gpt2: NewLanguageModel, tmp_path: Path
) -> None:
    gpt2.build().save_pretrained(tmp_path)
    gpt2.tokenizer.save_pretrained(tmp_path)
    frozen = make_decoder(PretrainedLanguageModel(str(tmp_path)))
    frozen.train()
    assert frozen.training
    assert not any(part.training for part in frozen.lm.modules())
    learned = [name for name, parameter in frozen.named_parameters() if parameter.requires_grad]
    assert learned
    assert all("norm" in name or "gated_cross_attn_layer" in name for name in learned)
    trained = make_decoder(PretrainedLanguageModel(str(tmp_path), trainable=True))
    trained.train()
    assert all(part.training for part in trained.modules())
    trained.eval()
    assert not any(part.training for part in trained.modules())


def test_load_builds_the_model_once(make_decoder: MakeDecoder, gpt2: NewLanguageModel) -> None:
    decoder = make_decoder(gpt2)
    lm, state = decoder.lm, dict(decoder.state_dict())
    decoder.load()
    assert decoder.lm is lm
    assert decoder.state_dict().keys() == state.keys()


def test_a_model_of_half_precision_runs_beside_parts_of_full_precision(
    make_decoder: MakeDecoder, llama: NewLanguageModel, tmp_path: Path
) -> None:
    llama.build().save_pretrained(tmp_path)
    llama.tokenizer.save_pretrained(tmp_path)
    decoder = make_decoder(PretrainedLanguageModel(str(tmp_path), dtype="bfloat16"))
    visual = torch.randn(3, 4, 32, requires_grad=True)
    plain = decoder.loss(visual, CAPTIONS)
    with torch.autocast("cpu", torch.bfloat16):
        half = decoder.loss(visual, CAPTIONS)
    torch.autograd.backward(half.mean())
    assert plain.sums.dtype is torch.float32
    torch.testing.assert_close(plain.sums, half.sums, rtol=0.1, atol=0.1)
    learned = [parameter for parameter in decoder.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.dtype is torch.float32 for parameter in learned)
    decoder.generate(visual, GenerationSettings(max_new_tokens=2))


def test_published_generation_settings_do_not_mix_with_ours(make_decoder: MakeDecoder, llama: NewLanguageModel) -> None:
    decoder = make_decoder(llama)
    config = decoder._generation_config(GenerationSettings(do_sample=True, top_p=0.9))
    assert (config.top_k, config.top_p, config.max_new_tokens) == (0, 0.9, 30)
    assert decoder.lm.generation_config.eos_token_id is None
    assert config.eos_token_id == llama.tokenizer.eos_token_id


def test_sampling_follows_the_seed(make_decoder: MakeDecoder, llama: NewLanguageModel) -> None:
    decoder = make_decoder(llama).eval()
    visual = torch.randn(3, 4, 32)
    settings = GenerationSettings(max_new_tokens=8, do_sample=True, temperature=3.0)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(decoder.generate(visual, settings))
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_caption_beyond_the_context_is_refused(make_decoder: MakeDecoder, gpt2: NewLanguageModel) -> None:
    decoder = make_decoder(gpt2)
    long = " ".join(["circle"] * 70)
    with pytest.raises(ValueError, match=r"captions.* 7\d .* 64.*max_text_tokens"):
        decoder.loss(torch.randn(1, 4, 32), [long])
    with decoder.visual_context(torch.randn(1, 4, 32)) as context:
        num_given = context.prefix.shape[1] + decoder.caption_tokenizer.encode_prompts([""]).inputs.shape[1]
    most = 64 - num_given + 1  # the last token is no input
    for do_sample in (False, True):
        decoder.generate(torch.randn(1, 4, 32), GenerationSettings(max_new_tokens=most, do_sample=do_sample))
    with pytest.raises(ValueError, match=r"generated texts.* 65 .* 64.*max_new_tokens"):
        decoder.generate(torch.randn(1, 4, 32), GenerationSettings(max_new_tokens=most + 1))


def test_logits_are_computed_at_targets_only(make_decoder: MakeDecoder, gpt2: NewLanguageModel) -> None:
    decoder = make_decoder(gpt2)
    shapes = []
    handle = decoder.lm.get_output_embeddings().register_forward_hook(lambda _, __, logits: shapes.append(logits.shape))
    decoder.loss(torch.randn(3, 4, 32), CAPTIONS)
    handle.remove()
    assert shapes == [(9 + 4 + 3, len(gpt2.tokenizer))]
    assert len(decoder.lm.get_output_embeddings()._forward_pre_hooks) == 0


def test_groups_of_similar_lengths_change_neither_losses_nor_gradients(
    decoder: CausalDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions, prompts = [*CAPTIONS, "a tiny star", "one square"], [*PROMPTS, "", "a"]
    images = torch.randn(5, 4, 32)

    def run(num_rows: int) -> tuple[Tensor, Tensor, Tensor, list[tuple[int, ...]]]:
        monkeypatch.setattr(causal, "_ROWS_ON_CPU", num_rows)
        visual, shapes = images.clone().requires_grad_(), []
        head = decoder.lm.get_output_embeddings()
        handle = head.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape[:2])))
        loss = decoder.loss(visual, captions, prompts)
        handle.remove()
        return loss.sums, loss.counts, torch.autograd.grad(loss.sums.sum(), visual)[0], shapes

    *together, (shape,) = run(5)
    *grouped, shapes = run(2)
    for actual, expected in zip(grouped, together, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    assert [rows for rows, _ in shapes] == [2, 2, 1]
    assert [length for _, length in shapes] == sorted(length for _, length in shapes)
    assert sum(rows * length for rows, length in shapes) < 0.8 * shape[0] * shape[1]


def test_texts_are_sampled_from_the_distribution_of_their_losses(
    make_decoder: MakeDecoder, llama: NewLanguageModel
) -> None:
    decoder = make_decoder(llama).eval()
    with torch.no_grad():
        decoder.lm.get_output_embeddings().weight.div_(8)  # a flatter distribution
        samples = decoder.sample(torch.randn(1, 4, 32), 2000, 2)
    outcomes = list(zip(samples.texts, samples.is_complete, strict=True))
    probabilities = dict(zip(outcomes, samples.losses.sums.neg().exp().tolist(), strict=True))
    num_tokens = dict(zip(outcomes, samples.losses.counts.tolist(), strict=True))
    # Texts with special tokens are excluded: other token sequences may decode to the same text.
    counts = {key: outcomes.count(key) for key, num in num_tokens.items() if len(key[0].split()) + key[1] == num}
    assert len(counts) > 20
    assert sum(probabilities.values()) < 1 + 1e-4
    for outcome in sorted(counts, key=counts.__getitem__)[-10:]:
        expected = 2000 * probabilities[outcome]
        assert abs(counts[outcome] - expected) < 5 * expected**0.5


def test_a_sample_has_the_loss_of_its_tokens(
    decoder: CausalDecoder, visual: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        decoder.lm.get_output_embeddings().weight.div_(20)
    tokenizer = decoder.caption_tokenizer
    encode = tokenizer.encode_generated
    seen: list[Tensor] = []

    def encode_generated(ids: Tensor, prompts: Sequence[str]) -> TargetTokens:
        seen.append(ids)
        return encode(ids, prompts)

    monkeypatch.setattr(tokenizer, "encode_generated", encode_generated)
    torch.manual_seed(0)
    samples = decoder.sample(visual, 8, 4, PROMPTS)
    assert {True, False} == set(samples.is_complete)
    for row, ids in enumerate(seen[0]):
        targets = ids[: int(samples.losses.counts[row])]
        assert (targets[-1] == tokenizer.eos_id) == samples.is_complete[row]
        assert tokenizer.eos_id not in targets[:-1]
        assert tokenizer.decode(targets[None]) == [samples.texts[row]]
        inputs = torch.cat([tokenizer.encode_prompts([PROMPTS[row // 8]]).inputs[0], targets])
        with torch.no_grad(), decoder.visual_context(visual[row // 8 : row // 8 + 1]) as context:
            embeds = torch.cat([context.prefix, decoder.lm.get_input_embeddings()(inputs[None])], dim=1)
            logits = decoder.lm(inputs_embeds=embeds).logits[0, -len(targets) - 1 : -1]
        logits[:, decoder.source.tokenizer.unk_token_id] = -torch.inf
        expected = -logits.log_softmax(-1).gather(1, targets[:, None]).sum()
        torch.testing.assert_close(samples.losses.sums[row], expected, atol=1e-4, rtol=1e-4)


def test_samples_may_be_empty_or_cut_and_have_gradients(
    make_decoder: MakeDecoder, gpt2: NewLanguageModel, visual: Tensor
) -> None:
    decoder = make_decoder(gpt2).eval()
    with torch.no_grad():
        decoder.lm.get_output_embeddings().weight.div_(20)
    visual.requires_grad_()
    samples = decoder.sample(visual, 60, 1)
    assert samples.losses.counts.tolist() == [1] * 180
    assert all(ended == (not text) for text, ended in zip(samples.texts, samples.is_complete, strict=True) if text)
    assert {True, False} == set(samples.is_complete)
    torch.autograd.backward(samples.losses.sums.sum())
    assert visual.grad is not None
    assert (visual.grad.abs().sum((1, 2)) > 0).all()


def test_linear_layers_have_the_gradients_of_a_loss_after_generation(decoder: CausalDecoder, visual: Tensor) -> None:
    weights = [part.weight for part in decoder.modules() if isinstance(part, nn.Linear)]
    gradients = []
    for num_generated in (0, 2):
        decoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            if num_generated:
                decoder.generate(visual, GenerationSettings(max_new_tokens=num_generated))
            decoder.loss(visual, CAPTIONS).sums.sum().backward()
        gradients.append([weight.grad for weight in weights])
    assert len(weights) > 0
    assert all(gradient is not None and gradient.any() for gradient in gradients[0])
    torch.testing.assert_close(*gradients)


def test_the_unknown_word_is_never_sampled(make_decoder: MakeDecoder, gpt2: NewLanguageModel) -> None:
    decoder = make_decoder(gpt2).eval()
    with torch.no_grad():
        decoder.lm.get_output_embeddings().weight.zero_()
    samples = decoder.sample(torch.randn(2, 4, 32), 100, 1)
    assert samples.losses.sums.tolist() == pytest.approx([torch.tensor(len(gpt2.tokenizer) - 1.0).log().item()] * 200)


def test_samples_follow_the_seed(make_decoder: MakeDecoder, gpt2: NewLanguageModel, visual: Tensor) -> None:
    decoder, texts = make_decoder(gpt2).eval(), []
    with torch.no_grad():
        decoder.lm.get_output_embeddings().weight.div_(20)
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        texts.append(decoder.sample(visual, 1, 8).texts)
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("max_text_tokens", [-1, 0])
def test_a_maximum_without_a_token_is_refused(gpt2: NewLanguageModel, max_text_tokens: int) -> None:
    with pytest.raises(ValueError, match=rf"PrefixDecoder\.max_text_tokens is {max_text_tokens}; expected 1 or more"):
        PrefixDecoder(gpt2, max_text_tokens=max_text_tokens)
