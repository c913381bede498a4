from pathlib import Path

import pytest

from synth2_lightning.io import locations
from synth2_lightning.io.locations import find_checkpoint, hub_from_cache, locate_model, resolve


def test_path_is_itself(tmp_path: Path) -> None:
    assert resolve(tmp_path, "folder") == tmp_path
    assert resolve(str(tmp_path), "folder") == tmp_path


def test_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "weights.bin").touch()
    assert resolve("~/weights.bin", "weights") == tmp_path / "weights.bin"


def test_package_file() -> None:
    assert resolve("package://synth2_lightning/py.typed", "marker").is_file()


@pytest.mark.parametrize("scheme", ["package://torch", "weights://tiny"])
@pytest.mark.parametrize("inner", ["/etc/passwd", "../secret", "inner/../../secret"])
def test_a_path_that_leads_out_of_its_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, inner: str
) -> None:
    monkeypatch.setattr(locations, "fetch", lambda name: tmp_path / name)
    with pytest.raises(ValueError, match=r"leads out of its folder.*not read"):
        resolve(f"{scheme}/{inner}", "file")


def test_weights_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny" / "inner").mkdir(parents=True)
    monkeypatch.setattr(locations, "fetch", lambda name: tmp_path / name)
    assert resolve("weights://tiny", "model") == tmp_path / "tiny"
    assert resolve("weights://tiny/inner", "model") == tmp_path / "tiny" / "inner"


def test_the_message_of_a_missing_path_names_object_path_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tokenizer.*nowhere'.*weights://NAME/PATH"):
        resolve(tmp_path / "nowhere", "tokenizer")


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weights.*'gpt-5'"):
        resolve("weights://gpt-5/model.bin", "model")


@pytest.mark.parametrize("model", ["gpt2", "amused/amused-256"])
def test_a_name_without_the_form_of_a_path_is_a_hub_id(model: str) -> None:
    assert locate_model(model, "model") == model


@pytest.mark.parametrize("model", ["./nowhere", "/nowhere", "~/nowhere", "a/b/c", "package://synth2_lightning/nowhere"])
def test_a_name_in_the_form_of_a_path_is_no_hub_id(model: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"model.*(nowhere|a/b/c)'"):
        locate_model(model, "model")


def test_local_files_take_precedence_over_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpt2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate_model("gpt2", "model") == "gpt2"
    assert locate_model("package://synth2_lightning/scenes", "model").endswith("scenes")


def test_a_folder_without_a_checkpoint_is_refused_and_a_file_is_itself(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match=f"no checkpoint.*{folder}"):
        find_checkpoint(tmp_path)
    (folder / "last.ckpt").touch()
    assert find_checkpoint(folder / "last.ckpt").name == "last.ckpt"


def test_a_checkpoint_takes_models_on_the_hub_from_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with hub_from_cache(), pytest.raises(ValueError, match=r"somebody/else.*cache.*--from_hub somebody/else"):
        locate_model("somebody/else", "tokenizer")
    with hub_from_cache(["somebody/else"]), hub_from_cache():
        assert locate_model("somebody/else", "tokenizer") == "somebody/else"
    snapshot = tmp_path / "models--somebody--else" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "models--somebody--else" / "refs").mkdir()
    (tmp_path / "models--somebody--else" / "refs" / "main").write_text("0" * 40)
    with hub_from_cache():
        assert locate_model("somebody/else", "tokenizer") == str(snapshot)
