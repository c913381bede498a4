from pathlib import Path

import pytest

from synth2_lightning.huggingface import NewNetwork, folder_or_hub_name

SCENES = "package://synth2_lightning/scenes/vocabulary"


def test_a_folder_here_goes_before_a_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert folder_or_hub_name("owner/name", "network") == "owner/name"
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert folder_or_hub_name("owner/name", "network") == str(Path("owner/name"))
    assert folder_or_hub_name(SCENES, "network").endswith("scenes/vocabulary")


@pytest.mark.parametrize("location", ["./nowhere", "/nowhere", "~/nowhere", "package://synth2_lightning/nowhere"])
def test_what_can_be_no_name_must_be_there(location: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"The text network is not at '{location}'"):
        folder_or_hub_name(location, "text network")


def test_the_vocabulary_is_the_tokenizers() -> None:
    plan = NewNetwork({"model_type": "t5", "d_model": 32}, SCENES, "Example")
    assert plan.config.vocab_size == len(plan.tokenizer)
    assert (plan.config.bos_token_id, plan.config.eos_token_id, plan.config.pad_token_id) == (1, 2, 0)
    assert plan.config.hidden_size == 32


def test_the_messages_name_whose_configuration_it_is() -> None:
    with pytest.raises(
        ValueError, match=r"Example.config has the keys \['d_model'\]; expected 'model_type' among them"
    ):
        NewNetwork({"d_model": 32}, SCENES, "Example")
    with pytest.raises(ValueError, match=r"Example.config has the key 'd_modle', .* a 't5' model .* expected d_model"):
        _ = NewNetwork({"model_type": "t5", "d_modle": 32}, SCENES, "Example").config
    with pytest.raises(ValueError, match=r"the key 'vocab_size'.*Vocabulary and special tokens are taken from the tok"):
        _ = NewNetwork({"model_type": "t5", "vocab_size": 7}, SCENES, "Example").config
