from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from synth2_lightning.filters.answers import read_caption
from synth2_lightning.generators.language_model import LanguageModelCaptionGenerator
from synth2_lightning.generators.token_sampling import TokenSampling
from synth2_lightning.testing import check_caption_generator
from synth2_lightning.types import ChatMessage, Prompt

Save = Callable[..., str]

EXAMPLES: Prompt = (
    ChatMessage("system", "a picture of one"),
    ChatMessage("user", "circle"),
    ChatMessage("assistant", "a large red circle above a square"),
)
WORDS = (
    "circle",
    "small blue square",
    "two green triangles",
    "star",
    "a cross left of a heart",
    "red",
    "ring",
    "three",
)
PROMPTS: list[Prompt] = [(*EXAMPLES, ChatMessage("user", word)) for word in WORDS]
GREEDY = TokenSampling(max_new_tokens=12, top_k=1)


def decode(tokenizer: Any, ids: torch.Tensor) -> str:
    """Return the raw text without the end-of-text token."""
    return str(tokenizer.decode(ids[ids != tokenizer.eos_token_id])).strip()


def answer_one_by_one(folder: str, prompts: list[Prompt], opening: str = "") -> list[str]:
    """Return the answer of transformers to each prompt alone, with its own cache and attention."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = []
    for prompt in prompts:
        turns = [{"role": message.role, "content": message.content} for message in prompt]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) + opening
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False)
        ids = model.generate(**inputs, max_new_tokens=12, do_sample=False, pad_token_id=0)
        texts.append(decode(tokenizer, ids[0, inputs.input_ids.shape[1] :]))
    return texts


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_answers_are_those_of_transformers(save_model: Save, kind: str) -> None:
    folder = save_model(kind)
    generator = LanguageModelCaptionGenerator(folder, dtype="float32", num_rows=3, sampling=GREEDY)
    generator.load()
    other = (ChatMessage("system", "something else"), ChatMessage("user", "circle"))
    prompts: list[Prompt] = [*PROMPTS, other, (ChatMessage("user", "ring"),)]
    answers = generator.generate(prompts, list(range(len(prompts))))
    expected = answer_one_by_one(folder, prompts)
    assert [answer.text for answer in answers] == expected
    assert len(set(expected)) > 3
    tokenizer = generator.tokenizer
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "ring"}], add_generation_prompt=True)
    assert answers[-1].num_prompt_tokens == len(rendered["input_ids"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_keeps_the_contract_of_caption_generators(save_model: Save, dtype: str) -> None:
    sampling = TokenSampling(max_new_tokens=12)
    folder = save_model("llama")
    check_caption_generator(
        LanguageModelCaptionGenerator(folder, dtype=dtype, num_rows=3, sampling=sampling),  # type: ignore[arg-type]
        PROMPTS,
    )


def test_an_opening_is_continued_and_is_part_of_the_answer(save_model: Save) -> None:
    folder = save_model("llama")
    generator = LanguageModelCaptionGenerator(folder, dtype="float32", num_rows=2, sampling=GREEDY)
    generator.load()
    opened: list[Prompt] = [(*prompt, ChatMessage("assistant", "there are two")) for prompt in PROMPTS[:3]]
    answers = generator.generate(opened, [0, 0, 0])
    continued = answer_one_by_one(folder, PROMPTS[:3], opening="there are two")
    assert [answer.text for answer in answers] == [f"there are two {text}".strip() for text in continued]
    assert answers[0].num_tokens <= 12


def test_a_model_without_a_chat_template_is_shown_paragraphs(save_model: Save) -> None:
    folder = save_model("llama", chat_template=None)
    generator = LanguageModelCaptionGenerator(folder, dtype="float32", num_rows=2, sampling=GREEDY)
    generator.load()
    (answer,) = generator.generate(PROMPTS[:1], [0])
    tokenizer = generator.tokenizer
    text = "a picture of one\n\ncircle\n\na large red circle above a square\n\ncircle\n\n"
    inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = model.generate(**inputs, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert answer.text == decode(tokenizer, ids[0, inputs.input_ids.shape[1] :])


def test_a_truncated_answer_is_marked(save_model: Save) -> None:
    generator = LanguageModelCaptionGenerator(
        save_model("llama"), dtype="float32", num_rows=2, sampling=TokenSampling(max_new_tokens=2, top_k=1)
    )
    generator.load()
    reasons = {answer.finish_reason: answer.num_tokens for answer in generator.generate(PROMPTS, [0] * len(PROMPTS))}
    assert reasons["length"] == 2
    assert set(reasons) <= {"length", "stop"}


def test_provenance_contains_the_weights_and_the_sampling(save_model: Save) -> None:
    folder = save_model("llama")
    one, other = (
        LanguageModelCaptionGenerator(folder, dtype="float32", sampling=TokenSampling(temperature=value))
        for value in (0.5, 0.7)
    )
    for generator in (one, other):
        generator.load()
    assert one.provenance()["weights"].startswith("llama:")
    assert one.provenance() != other.provenance()
    with torch.no_grad():
        one.network.model.embed_tokens.weight[0, 0] += 1.0
    assert one.provenance()["weights"] != other.provenance()["weights"]


def test_an_attention_that_cannot_share_is_refused(save_model: Save) -> None:
    with pytest.raises(ValueError, match=r"gemma2.*attention.*sliding_window=4096"):
        LanguageModelCaptionGenerator(save_model("gemma2")).load()


def test_invalid_settings_are_refused(save_model: Save) -> None:
    with pytest.raises(ValueError, match="num_rows=0"):
        LanguageModelCaptionGenerator("anything", num_rows=0)
    generator = LanguageModelCaptionGenerator(
        save_model("llama"), dtype="float32", sampling=TokenSampling(max_new_tokens=250)
    )
    with pytest.raises(RuntimeError, match=r"LanguageModelCaptionGenerator.*load\(\)"):
        generator.generate(PROMPTS[:1], [0])
    with pytest.raises(RuntimeError, match=r"LanguageModelCaptionGenerator.*load\(\)"):
        generator.provenance()
    generator.load()
    with pytest.raises(ValueError, match=r" 2 prompts.* 1 seeds"):
        generator.generate(PROMPTS[:2], [0])
    with pytest.raises(ValueError, match=r"max_new_tokens=250.* 28\d positions.* 256\b"):
        generator.generate(PROMPTS[:1], [0])
    with pytest.raises(FileNotFoundError, match=r"language model.*'\./nowhere'"):
        LanguageModelCaptionGenerator("./nowhere").load()


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("<think>\n", "<think>\n"),
        ("[THINK]", "[THINK]"),
        ("<seed:think>", "<seed:think>"),
        ("<think>\n\n</think>\n\n", ""),
        ("<|assistant|>\n", ""),
    ],
)
def test_reasoning_that_the_template_opens_is_opened_in_the_answer(save_model: Save, end: str, expected: str) -> None:
    template = (
        "{% for message in messages %}{{ message.content }} {% endfor %}{% if add_generation_prompt %}END{% endif %}"
    )
    folder = save_model("llama", chat_template=template.replace("END", end))
    generator = LanguageModelCaptionGenerator(folder, dtype="float32", num_rows=2, sampling=GREEDY)
    generator.load()
    (answer,) = generator.generate(PROMPTS[:1], [0])
    assert answer.text.startswith(expected.strip())
    assert ("think" in answer.text.lower()) == bool(expected)
    assert not read_caption(answer.text) if expected else read_caption(answer.text)
