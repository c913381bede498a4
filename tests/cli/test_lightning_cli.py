import re
from pathlib import Path

import pytest
from jsonargparse import Namespace

from synth2_lightning.cli import main
from synth2_lightning.cli.lightning_cli import restore_nulls


def test_the_help_lists_classes_of_this_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--help"])
    assert stop.value.code == 0
    shown = "".join(capsys.readouterr().out.split())
    for name in ("modules.muse.MuseModule", "datamodules.real.RealDataModule", "sources.coco.CocoSource"):
        assert f"synth2_lightning.{name}," in shown


def test_a_package_that_is_not_installed_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "mixed.yaml", "--model=no_such_package.Head"])
    assert stop.value.code == 2
    assert "no_such_package" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.init_args.synthetic_fraction.init_args.fraction=0.3"], r"error: .* 0\.3 of 64 pairs is 19\.2"),
        (["--data.init_args.synthetic.init_args.shards=nowhere"], r"error: .*shards.*'nowhere'"),
    ],
)
def test_what_parts_refuse_is_shown_without_a_traceback(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "mixed.yaml", *words])
    assert stop.value.code == 1
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_a_precision_that_casts_codebooks_is_refused(precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "mixed.yaml", f"--trainer.precision={precision}"])
    assert stop.value.code == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(rf"error: .*trainer\.precision.*{precision}.*'auto', '32-true', 'bf16-mixed', '16-mixed'", error)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--trainer.enable_progress_bar=false"], "Trainer was configured with `enable_progress_bar=False`"),
        (
            ["--config", "overlays/strategy/fsdp1.yaml", "--trainer.accelerator=cpu"],
            "The strategy `fsdp` requires a GPU",
        ),
        (["--trainer.barebones=true"], "`Trainer(barebones=True, logger="),
        (["--trainer.val_check_interval=1.5"], "`val_check_interval` should be an integer or a time-based duration"),
    ],
)
def test_incompatible_settings_of_the_trainer_are_reported(
    words: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "mixed.yaml", *words])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert "error: The trainer's settings" in error
    assert reason in error


def test_deepspeed_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("synth2_lightning.cli.lightning_cli.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "mixed.yaml", "--config", "overlays/strategy/deepspeed.yaml"])
    assert stop.value.code == 1
    assert "DeepSpeedStrategy, but DeepSpeed is not installed" in capsys.readouterr().err


def test_a_command_that_does_not_match_its_run_file_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    generator = "--model.init_args.generator=synth2_lightning.testing.TinyCaptionGenerator"
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "captions.yaml", generator, "--trainer.max_epochs=1"])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "run file" in error
    assert "No `training_step()` method" in error


@pytest.mark.parametrize(
    "given",
    [
        ["--data.train.init_args.column=null"],
        ["--data.train.init_args.column", "null"],
        ["--data.train.column=null"],
    ],
)
def test_null_on_the_command_line_is_no_text(given: list[str]) -> None:
    config = Namespace(data=Namespace(train=Namespace(init_args=Namespace(column="None", name="None"))))
    restore_nulls(config, ["fit", "--config", "photos.yaml", *given, "--data.train.init_args.name=None"])
    assert config.data.train.init_args.column is None
    assert config.data.train.init_args.name == "None"
