import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from synth2_lightning.compat.transformers import dequantizing
from synth2_lightning.concepts.prompts import PromptTemplate
from synth2_lightning.decoders.language_model import LoraSettings, PretrainedLanguageModel
from synth2_lightning.decoders.prompted import PromptedCausalModel
from synth2_lightning.generators.language_model import LanguageModelCaptionGenerator
from synth2_lightning.generators.token_sampling import TokenSampling
from synth2_lightning.nn.prompt_tokens import ChatPromptTokenizer
from synth2_lightning.types import Concept, GenerationSettings, Prompt

Save = Callable[..., str]

TEMPLATE = PromptTemplate("words", 1, "a {names}", "a picture of one", num_concepts=2)
CIRCLE, SQUARE = Concept("1", "circle"), Concept("2", "square")
PROMPTS: list[Prompt] = [TEMPLATE.render(names) for names in ([CIRCLE], [CIRCLE, SQUARE], [], [SQUARE])] * 3
CAPTIONS = ["a large red circle above a square", "a circle", "two green triangles", "a small blue square"] * 3
GREEDY = GenerationSettings(max_new_tokens=12)


def load(folder: str, max_text_tokens: int = 64, **settings: Any) -> PromptedCausalModel:
    part = PromptedCausalModel(PretrainedLanguageModel(folder, **settings), max_text_tokens)
    part.load()
    return part


def publish(folder: str, **settings: Any) -> None:
    """Add settings of generation to those in the folder of a model."""
    file = Path(folder, "generation_config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def disturb(part: PromptedCausalModel) -> None:
    """Change the trainable weights, because the low-rank updates of a new model are 0."""
    torch.manual_seed(1)
    for weight in part.parameters():
        if weight.requires_grad:
            weight.data += 0.1 * torch.randn_like(weight)


def losses_one_by_one(part: PromptedCausalModel, prompts: list[Prompt], captions: list[str]) -> torch.Tensor:
    """Return the loss of each caption by one forward pass without cache and padding."""
    tokenizer, sums = part.source.tokenizer, []
    for prompt, caption in zip(prompts, captions, strict=True):
        tokens = ChatPromptTokenizer(tokenizer).encode(prompt)
        text = [*tokenizer(caption, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        ids = torch.tensor([[*tokens.prefix, *tokens.suffix, *text]])
        logits = part.lm(ids, use_cache=False).logits[0, -len(text) - 1 : -1]
        sums.append(cross_entropy(logits, torch.tensor(text), reduction="sum"))
    return torch.stack(sums)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
def test_the_loss_is_that_of_each_caption_alone(save_model: Save, kind: str) -> None:
    part = load(save_model(kind), trainable=True).eval()
    found = part.loss(PROMPTS, CAPTIONS)
    expected = losses_one_by_one(part, PROMPTS, CAPTIONS)
    assert found.counts.tolist() == [8, 3, 4, 5] * 3
    torch.testing.assert_close(found.sums, expected, atol=1e-4, rtol=1e-5)
    gradients = []
    for sums in (found.sums, expected):
        part.zero_grad()
        sums.sum().backward()
        gradients.append([weight.grad for weight in part.parameters()])
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_prompts_with_different_prefixes_are_one_batch(save_model: Save) -> None:
    part = load(save_model("llama")).eval()
    other = PromptTemplate("words", 2, "a {names}", "two", num_concepts=2)
    prompts = [TEMPLATE.render([CIRCLE]), other.render([CIRCLE]), TEMPLATE.render([SQUARE])]
    torch.testing.assert_close(
        part.loss(prompts, CAPTIONS[:3]).sums, losses_one_by_one(part, prompts, CAPTIONS[:3]), atol=1e-4, rtol=1e-5
    )


def test_long_captions_are_truncated_without_an_end(save_model: Save) -> None:
    folder = save_model("llama")
    cut = load(folder, max_text_tokens=2).loss(PROMPTS[:1], ["a circle above a square"])
    whole = load(folder).loss(PROMPTS[:1], ["a circle"])
    assert (int(cut.counts), int(whole.counts)) == (2, 3)
    assert float(cut.sums) < float(whole.sums)


@pytest.mark.parametrize(
    ("prompt", "caption", "message"),
    [
        (PROMPTS[0], " ", r"text ' ' has no word"),
        (PROMPTS[0], "a circle " * 200, r"text needs \d{3} positions.*at most 256"),
    ],
)
def test_captions_that_do_not_fit_are_refused(save_model: Save, prompt: Prompt, caption: str, message: str) -> None:
    part = load(save_model("llama"), max_text_tokens=1000)
    with pytest.raises(ValueError, match=message):
        part.loss([prompt], [caption])


def test_a_maximum_without_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_text_tokens is 0; expected 1 or more"):
        PromptedCausalModel(PretrainedLanguageModel("llama"), max_text_tokens=0)


def test_answers_that_may_not_fit_are_refused(save_model: Save) -> None:
    part = load(save_model("llama"))
    with pytest.raises(ValueError, match=r"text needs \d{3} positions.*at most 256.*max_new_tokens"):
        part.generate(PROMPTS[:1], GenerationSettings(max_new_tokens=250))


@pytest.mark.parametrize("settings", [{"repetition_penalty": 1e6}, {"no_repeat_ngram_size": 1}])
def test_only_generated_tokens_count_as_repeated(save_model: Save, settings: dict[str, Any]) -> None:
    part = load(save_model("llama")).eval()
    words = part.source.tokenizer("circle a", add_special_tokens=False).input_ids
    biases = torch.zeros(len(part.source.tokenizer)).index_put((torch.tensor(words),), torch.tensor([90.0, 60.0]))
    part.lm.get_output_embeddings().register_forward_hook(lambda _, __, logits: logits + biases)
    (answer,) = part.generate(PROMPTS[:1], GenerationSettings(max_new_tokens=2, **settings))
    assert "circle" in " ".join(message.content for message in PROMPTS[0])
    assert answer == "circle a"


def test_published_generation_settings_do_not_mix_with_ours(save_model: Save, tmp_path: Path) -> None:
    folder, settings = save_model("llama"), GenerationSettings(max_new_tokens=4)
    part = load(folder).eval()
    answers = part.generate(PROMPTS, settings)
    words = part.source.tokenizer(answers[0], add_special_tokens=False).input_ids
    assert words
    publish(folder, suppress_tokens=words, repetition_penalty=1e6)
    published = load(folder).eval()
    assert published.generate(PROMPTS, settings) == answers
    published.export(tmp_path / "export")
    assert json.loads((tmp_path / "export/generation_config.json").read_text())["suppress_tokens"] == words


def test_a_tokenizer_without_an_end_is_refused(save_model: Save) -> None:
    part = load(save_model("llama"))
    part.source.tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"no end-of-text token"):
        part.loss(PROMPTS[:1], CAPTIONS[:1])


def greedy(folder: Path, prompts: list[Prompt]) -> list[str]:
    """Return the answers of transformers without this package."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = []
    for prompt in prompts:
        turns = [{"role": message.role, "content": message.content} for message in prompt]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False)
        ids = model.generate(**inputs, max_new_tokens=12, do_sample=False, pad_token_id=0)
        texts.append(tokenizer.decode(ids[0, inputs.input_ids.shape[1] :], skip_special_tokens=True).strip())
    return texts


@pytest.mark.parametrize("settings", [{"trainable": True}, {"lora": LoraSettings(r=2)}], ids=["all", "lora"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # PEFT detects it for GPT-2
def test_an_export_answers_as_the_model_does(
    save_model: Save, tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    part = load(save_model(kind), **settings).eval()
    before = part.generate(PROMPTS[:4], GREEDY)
    disturb(part)
    answers = part.generate(PROMPTS[:4], GREEDY)
    assert answers != before
    part.export(tmp_path / "export")
    assert part.generate(PROMPTS[:4], GREEDY) == answers  # the model itself is not modified
    assert greedy(tmp_path / "export", PROMPTS[:4]) == answers
    generator = LanguageModelCaptionGenerator(
        str(tmp_path / "export"), dtype="float32", num_rows=2, sampling=TokenSampling(max_new_tokens=12, top_k=1)
    )
    generator.load()
    decode = part.source.tokenizer
    found = [completion.text for completion in generator.generate(PROMPTS[:4], [0] * 4)]
    assert [decode.decode(decode(text).input_ids, skip_special_tokens=True).strip() for text in found] == answers


def test_an_export_is_a_plain_folder_of_transformers(save_model: Save, tmp_path: Path) -> None:
    folder = save_model("llama")
    publish(folder, eos_token_id=7)
    part = load(folder, lora=LoraSettings(r=2))
    part.lm.config.quantization_config = dequantizing() or {"dequantize": True}  # as of a GGUF file
    part.lm.hf_quantizer = object()
    part.export(tmp_path)
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".py"))]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in config
    ends = json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [part.source.tokenizer.eos_token_id, 7]


@pytest.mark.slow
def test_a_gguf_file_becomes_a_folder(tmp_path: Path) -> None:
    part = load("weights://smollm2-135m-instruct", gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf").eval()
    template = PromptTemplate("words", 1, "Words: {names}", "Write the caption of an image.", num_concepts=2)
    prompts = [template.render([CIRCLE])]
    answers = part.generate(prompts, GREEDY)
    part.export(tmp_path)
    assert greedy(tmp_path, prompts) == answers
    assert len(answers[0].split()) > 2
