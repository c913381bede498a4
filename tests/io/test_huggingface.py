import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from synth2_lightning.io.huggingface import NewNetwork, check_language_model

SCENES = "package://synth2_lightning/scenes/vocabulary"


def test_the_vocabulary_is_the_tokenizers() -> None:
    plan = NewNetwork({"model_type": "t5", "d_model": 32}, SCENES, "Example")
    assert plan.config.vocab_size == len(plan.tokenizer)
    assert (plan.config.bos_token_id, plan.config.eos_token_id, plan.config.pad_token_id) == (1, 2, 0)
    assert plan.config.hidden_size == 32


def test_the_messages_name_whose_configuration_it_is() -> None:
    with pytest.raises(ValueError, match=r"Example\.config.*\['d_model'\].*'model_type'"):
        NewNetwork({"d_model": 32}, SCENES, "Example")
    with pytest.raises(ValueError, match=r"Example\.config.*'d_modle'.*'t5'.*d_model"):
        _ = NewNetwork({"model_type": "t5", "d_modle": 32}, SCENES, "Example").config
    with pytest.raises(ValueError, match=r"'vocab_size'.*tokenizer"):
        _ = NewNetwork({"model_type": "t5", "vocab_size": 7}, SCENES, "Example").config


def test_published_generation_settings_do_not_change_the_check_of_a_model() -> None:
    torch.manual_seed(2)  # its best beam is not the first one
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.5, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config.num_beams = 4
    check_language_model(model, "tiny")
    assert model.generation_config.num_beams == 4
