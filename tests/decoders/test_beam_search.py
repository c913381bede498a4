"""Equality with the beam search of transformers."""

import warnings
from dataclasses import asdict
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from synth2_lightning.decoders.beam_search import Beams
from synth2_lightning.decoders.causal import CausalDecoder
from synth2_lightning.decoders.cross_attention import CrossAttentionDecoder, GatedBlock
from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.decoders.prefix import PrefixDecoder
from synth2_lightning.types import GenerationSettings

NUM_TEXTS = 24
SETTINGS = [
    GenerationSettings(max_new_tokens=9),
    GenerationSettings(max_new_tokens=9, no_repeat_ngram_size=2),
    GenerationSettings(max_new_tokens=9, num_beams=3),
    GenerationSettings(max_new_tokens=9, num_beams=5, length_penalty=-0.5),
    GenerationSettings(max_new_tokens=9, num_beams=4, length_penalty=2.0),
    GenerationSettings(max_new_tokens=9, num_beams=3, no_repeat_ngram_size=2),
    GenerationSettings(max_new_tokens=1, num_beams=3),
]


@pytest.fixture(
    params=[PrefixDecoder, partial(CrossAttentionDecoder, cross_attn_every_n_layers=1)],
    ids=["prefix", "cross_attention"],
)
def decoder(request: pytest.FixtureRequest, language_model: NewLanguageModel) -> CausalDecoder:
    made: CausalDecoder = request.param(language_model)
    return _expressive(made)


def _expressive(decoder: CausalDecoder) -> CausalDecoder:
    """Set weights so that texts depend on the visual tokens, and end at different lengths."""
    torch.manual_seed(0)
    decoder.load()
    with torch.no_grad():
        for part in decoder.modules():
            if isinstance(part, GatedBlock):
                part.gated_cross_attn_layer.attn_gate.fill_(1.0)
        head = nn.Linear(32, decoder.lm.get_input_embeddings().num_embeddings, bias=False)
        decoder.lm.set_output_embeddings(head)  # untied from the input embeddings, which would repeat the last token
        nn.init.normal_(head.weight, std=0.3)
    return decoder.eval()


@torch.no_grad()
def _transformers(decoder: CausalDecoder, visual: Tensor, settings: GenerationSettings) -> list[str]:
    tokenizer = decoder.source.tokenizer
    config = GenerationConfig(
        **asdict(settings) | {"repetition_penalty": None},
        eos_token_id=decoder.caption_tokenizer.eos_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=[tokenizer.unk_token_id],
    )
    with decoder.visual_context(visual) as context:
        start = torch.full((len(visual), 1), decoder.caption_tokenizer.bos_id)
        embeds = torch.cat([context.prefix, decoder.lm.get_input_embeddings()(start)], dim=1)
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Passing `no_repeat_ngram_size` with `inputs_embeds`")
            ids = decoder.lm.generate(inputs_embeds=embeds, attention_mask=mask, generation_config=config)
    return decoder.caption_tokenizer.decode(ids)


def test_texts_are_those_of_transformers(decoder: CausalDecoder) -> None:
    visual = torch.randn(NUM_TEXTS, 4, 32)
    seen = set()
    for settings in SETTINGS:
        expected = _transformers(decoder, visual, settings)
        assert decoder.generate(visual, settings) == expected, settings
        seen |= set(expected)
    assert len(seen) > 6


def test_finished_texts_cost_nothing(gpt2: NewLanguageModel) -> None:
    decoder = _expressive(CrossAttentionDecoder(gpt2, cross_attn_every_n_layers=1))
    rows: list[int] = []
    decoder.lm.register_forward_pre_hook(
        lambda _, __, given: rows.append(len(given["input_ids"] if given.get("input_ids") is not None else [])),
        with_kwargs=True,
    )
    settings = GenerationSettings(num_beams=3, max_new_tokens=40)
    texts = decoder.generate(torch.randn(NUM_TEXTS, 4, 32), settings)
    assert rows[0] == 0  # embeddings, once per text
    assert rows[1] == 3 * NUM_TEXTS
    assert rows[1:] == sorted(rows[1:], reverse=True)
    assert len(set(rows[1:])) > 2
    assert len({len(text.split()) for text in texts}) > 2


def test_a_finished_rank_calls_the_model_while_others_are_not_finished(
    gpt2: NewLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = _expressive(PrefixDecoder(gpt2))
    visual, settings = torch.randn(4, 4, 32), GenerationSettings(num_beams=2, max_new_tokens=12)
    alone = decoder.generate(visual, settings)
    calls: list[bool] = []

    def others_need_twenty(num_texts: torch.Tensor) -> None:
        calls.append(not num_texts)
        num_texts += len(calls) < 20

    monkeypatch.setattr(torch.distributed, "all_reduce", others_need_twenty)
    monkeypatch.setattr("synth2_lightning.decoders.causal._is_sharded", lambda _: True)
    assert decoder.generate(visual, settings) == alone
    assert len(calls) == 20
    assert calls[-1]


def test_more_beams_than_words() -> None:
    beams = Beams(2, GenerationSettings(num_beams=4, max_new_tokens=3), eos_id=2, device=torch.device("cpu"))
    words = torch.tensor([0.3, 0.5, 0.2]).log()
    rows = beams.advance(torch.stack([words, torch.tensor([0.01, 0.01, 0.98]).log()]))
    assert rows.tolist() == [0, 0, 0, 1, 1, 1]  # including the finished beam, whose likelihood is 0
    while len(rows):
        rows = beams.advance(words.expand(len(rows), -1))
    assert beams.best_sequences().tolist() == [[1, 1, 1], [2, 2, 2]]  # padded with the end-of-text token
