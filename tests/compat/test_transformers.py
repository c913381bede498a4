import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForTextEncoding,
    Cache,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from synth2_lightning.compat.transformers import (
    attention_implementation,
    cache_name,
    dequantizing,
    find_cache,
    run_network,
    supports_attention_functions,
    update_model_kwargs,
)


@pytest.fixture
def model() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=7, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        attn_implementation="eager",
    )  # fmt: skip
    return LlamaForCausalLM(config)


def test_the_arguments_of_the_next_call_hold_the_cache_and_one_more_position(model: LlamaForCausalLM) -> None:
    kwargs = {"attention_mask": torch.ones(1, 3, dtype=torch.long), "position_ids": torch.arange(3)[None]}
    outputs = model(torch.tensor([[1, 2, 3]]), use_cache=True, **kwargs)
    updated = update_model_kwargs(model, outputs, dict(kwargs))
    assert isinstance(updated[cache_name()], DynamicCache)
    assert updated["attention_mask"].tolist() == [[1, 1, 1, 1]]
    assert updated["position_ids"].tolist() == [[0, 1, 2, 3]]


def test_the_implementation_of_attention_can_be_set_back(model: LlamaForCausalLM) -> None:
    assert attention_implementation(model) == "eager"
    model.set_attn_implementation("sdpa")
    assert attention_implementation(model) == "sdpa"


NETWORKS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 8, "n_layer": 2, "n_head": 2},
    "llama": {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2},
    # The second layer attends to the last two positions only.
    "gemma2": {
        "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 4,
        "num_key_value_heads": 2, "sliding_window": 2,
    },
    "bert": {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2},
    "clip_text_model": {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2},
    "t5": {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 2, "num_heads": 2},
}  # fmt: skip


@pytest.mark.parametrize("has_padding", [False, True])
@pytest.mark.parametrize("model_type", NETWORKS)
@torch.no_grad()
def test_a_network_runs_with_the_same_result_and_reads_nothing(model_type: str, has_padding: bool) -> None:
    config = AutoConfig.for_model(model_type, vocab_size=7, pad_token_id=0, **NETWORKS[model_type])
    is_text_encoder = model_type in ("bert", "clip_text_model", "t5")
    network = (AutoModelForTextEncoding if is_text_encoder else AutoModel).from_config(config).eval()
    before = attention_implementation(network)
    ids = torch.tensor([[1, 2, 3, 4, 5], [3, 2, 6, 1, 4]])
    mask = torch.ones_like(ids)
    if has_padding:
        mask[0, 3:] = 0
    found = run_network(network, has_padding, input_ids=ids, attention_mask=mask).last_hidden_state
    expected = network(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.equal(found[mask.bool()], expected[mask.bool()])
    assert attention_implementation(network) == before
    if model_type != "t5":  # T5 calls no registered attention functions
        network.to("meta")  # meta tensors have no values to read
        run_network(network, has_padding, input_ids=ids.to("meta"), attention_mask=mask.to("meta"))


def test_models_declare_whether_they_call_registered_attention_functions(model: LlamaForCausalLM) -> None:
    assert supports_attention_functions(model)
    assert not supports_attention_functions(torch.nn.Linear(1, 1))
    assert "_supports_attention_backend" in vars(PreTrainedModel)


def test_the_cache_has_the_name_that_causes_no_warning(
    model: LlamaForCausalLM, caplog: pytest.LogCaptureFixture
) -> None:
    ids = torch.tensor([[1, 2, 3]])
    cache = model(ids, use_cache=True)[cache_name()]
    assert isinstance(cache, DynamicCache)
    model(ids[:, :1], **{cache_name(): cache})
    assert cache.get_seq_length() == 4
    assert "deprecated" not in caplog.text


def test_older_versions_have_another_name_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Output:
        logits: torch.Tensor
        past_key_values: object

    monkeypatch.setattr("transformers.modeling_outputs.CausalLMOutputWithPast", Output)
    assert cache_name.__wrapped__() == "past_key_values"


@pytest.mark.parametrize("model_type", ["gpt2", "mamba"])
def test_the_cache_is_found_among_the_arguments(model_type: str) -> None:
    config = AutoConfig.for_model(model_type, vocab_size=7, num_hidden_layers=1, hidden_size=8, num_attention_heads=1)
    model = AutoModelForCausalLM.from_config(config)
    outputs = model(torch.tensor([[1, 2]]), use_cache=True)
    assert isinstance(find_cache(update_model_kwargs(model, outputs, {"use_cache": True})), Cache)


@pytest.mark.parametrize(("names", "expected"), [({"GgufConfig": dict}, {"dequantize": True}), ({}, None)])
def test_gguf_weights_are_dequantized_by_a_setting_or_always(
    monkeypatch: pytest.MonkeyPatch, names: dict[str, type], expected: dict[str, bool] | None
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(**names))
    assert dequantizing() == expected
