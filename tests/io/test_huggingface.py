import pytest

from synth2_lightning.io.huggingface import NewNetwork

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
