import math
from pathlib import Path
from typing import Any

import pytest
import torch

from synth2_lightning.decoders.language_model import LoraSettings, NewLanguageModel, PretrainedLanguageModel


@pytest.fixture
def folder(llama: NewLanguageModel, tmp_path: Path) -> str:
    llama.build().save_pretrained(tmp_path)
    llama.tokenizer.save_pretrained(tmp_path)
    return str(tmp_path)


def _num_trainable(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def test_a_pretrained_model_is_frozen_and_its_widths_are_known_beforehand(folder: str) -> None:
    source = PretrainedLanguageModel(folder)
    assert source.hidden_size == 32
    assert source.tokenizer.eos_token == "</s>"
    model = source.build()
    assert model.dtype is torch.float32
    assert _num_trainable(model) == 0


@pytest.mark.parametrize(("trainable", "dtype"), [(False, torch.bfloat16), (True, torch.float32)])
def test_frozen_weights_may_be_of_half_precision_and_trained_ones_are_not(
    folder: str, trainable: bool, dtype: torch.dtype
) -> None:
    model = PretrainedLanguageModel(folder, dtype="bfloat16", trainable=trainable, attn_implementation="eager").build()
    assert model.config._attn_implementation == "eager"
    assert {(weight.dtype, weight.requires_grad) for weight in model.parameters()} == {(dtype, trainable)}


def test_the_weights_are_those_of_the_folder(folder: str) -> None:
    from safetensors.torch import load_file

    stored = load_file(Path(folder) / "model.safetensors")
    built = PretrainedLanguageModel(folder).build().state_dict()
    assert len(stored) > 10
    assert all(torch.equal(tensor, built[name]) for name, tensor in stored.items())


def test_lora_trains_little_in_full_precision_and_changes_nothing_at_first(folder: str) -> None:
    plain = PretrainedLanguageModel(folder, dtype="bfloat16").build()
    source = PretrainedLanguageModel(
        folder, dtype="bfloat16", lora=LoraSettings(r=2, target_modules=("q_proj", "v_proj"))
    )
    model = source.build().eval()
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trainable) == 2 * 2 * 2  # blocks, maps, factors
    assert all("lora_" in name and parameter.dtype is torch.float32 for name, parameter in trainable.items())
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(model(ids).logits, plain(ids).logits)


def test_lora_on_all_linear_maps_leaves_the_head(folder: str) -> None:
    model = PretrainedLanguageModel(folder, lora=LoraSettings(r=2)).build()
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(names) == 2 * 7 * 2
    assert not any("lm_head" in name for name in names)


@pytest.mark.parametrize(
    ("targets", "found"),
    [(("q_proj", "vv_proj"), "has no vv_proj"), (("q_proj", "all-linear"), "has no all-linear"), ((), r"is \[\]")],
)
def test_targets_of_lora_that_the_model_lacks_are_refused(folder: str, targets: tuple[str, ...], found: str) -> None:
    source = PretrainedLanguageModel(folder, lora=LoraSettings(target_modules=targets))
    with pytest.raises(ValueError, match=rf"target_modules.*{found}.*q_proj.*v_proj"):
        source.build()


@pytest.mark.parametrize("setting", [{"r": 0}, {"alpha": 0.0}, {"alpha": math.nan}, {"dropout": 1.0}])
def test_updates_without_effect_are_refused(setting: dict[str, Any]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=rf"{name}={value}.*expected r of 1"):
        LoraSettings(**setting)


def test_trainable_and_lora_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"trainable=True.*lora"):
        PretrainedLanguageModel("somewhere", trainable=True, lora=LoraSettings())


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"language model.*\./nowhere"):
        PretrainedLanguageModel("./nowhere").build()


def test_a_new_model_takes_its_vocabulary_from_the_tokenizer(gpt2: NewLanguageModel) -> None:
    config = gpt2.config
    assert config.vocab_size == len(gpt2.tokenizer)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 0)
    assert gpt2.hidden_size == 32
    model = gpt2.build()
    assert _num_trainable(model) == sum(parameter.numel() for parameter in model.parameters())


def test_a_new_model_is_initialized_from_the_global_seed(gpt2: NewLanguageModel) -> None:
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(gpt2.build().get_input_embeddings().weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_configuration_without_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"n_embd.*model_type"):
        NewLanguageModel({"n_embd": 32}, "vocabulary")


def test_an_unknown_key_is_refused_with_a_similar_one(vocabulary: Path) -> None:
    source = NewLanguageModel({"model_type": "gpt2", "n_embed": 32}, str(vocabulary))
    with pytest.raises(ValueError, match=r"n_embed\b.*gpt2.*\bn_embd\b"):
        _ = source.config


def test_a_vocabulary_size_in_the_configuration_is_refused(vocabulary: Path) -> None:
    source = NewLanguageModel({"model_type": "gpt2", "vocab_size": 7}, str(vocabulary))
    with pytest.raises(ValueError, match=r"vocab_size.*tokenizer"):
        _ = source.config


@pytest.mark.parametrize(("type_", "similar"), [("qwen33", "qwen3"), ("gpt-2", "gpt2"), ("nonsense", "llama")])
def test_an_unknown_type_is_named_with_a_similar_one(type_: str, similar: str) -> None:
    source = NewLanguageModel({"model_type": type_}, "package://synth2_lightning/scenes/vocabulary")
    with pytest.raises(ValueError, match=rf"model_type.*{type_}.*\b{similar}\b"):
        source.build()
