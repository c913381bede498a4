import re
import shutil
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from synth2_lightning.cli import main
from synth2_lightning.demo import command
from synth2_lightning.export.captioner import Captioner
from synth2_lightning.modules.captioning import VisionLanguageModule


def test_a_missing_run_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        main(["demo", "runs/nothing"])
    assert re.search(r"error: .*captioner.*'runs/nothing'", capsys.readouterr().err)


def test_without_gradio_the_extra_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("synth2_lightning.io.extras.find_spec", lambda _: None)
    with pytest.raises(SystemExit, match="1"):
        main(["demo", str(run)])
    assert 'pip install "synth2-lightning[demo]"' in (capsys.readouterr().err)


def test_pairs_are_read_once_and_counted(run: Path, module: VisionLanguageModule, tmp_path: Path) -> None:
    console = Console(quiet=True)
    pairs, note = command.read_pairs(Captioner(module, "cpu"), run, tmp_path / "means.bin", console)
    assert pairs is not None
    assert pairs.num_images == 150
    assert re.search(r"\b150\b.*package://synth2_lightning/scenes/shards", note)


def test_runs_without_synthetic_pairs_are_reported(run: Path, module: VisionLanguageModule, tmp_path: Path) -> None:
    captioner, console = Captioner(module, "cpu"), Console(quiet=True)
    file = tmp_path / "means.bin"
    assert "no config.yaml" in command.read_pairs(captioner, None, file, console)[1]
    data = yaml.safe_load((run / "config.yaml").read_text())["data"]
    for content, reason in (
        (data["init_args"]["real"], "not trained on synthetic pairs"),
        ({**data["init_args"]["synthetic"], "init_args": {"shards": "moved"}}, "at 'moved'"),
    ):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": content}))
        assert reason in command.read_pairs(captioner, tmp_path, file, console)[1]


def test_examples_are_validation_images(run: Path, tmp_path: Path) -> None:
    assert len(command.save_examples(run, tmp_path, Console(quiet=True))) == 6
    assert command.save_examples(None, tmp_path, Console(quiet=True)) == []


def test_the_run_of_a_checkpoint_is_found(run: Path, tmp_path: Path) -> None:
    assert command.find_folder(str(run)) == run
    assert command.find_folder(str(run / "checkpoints" / "last.ckpt")) == run
    shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / "alone.ckpt")
    assert command.find_folder(str(tmp_path / "alone.ckpt")) is None
