import pickle
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy

from synth2_lightning import __version__, cli
from synth2_lightning.cli import config_folder, main


def test_version_and_help_import_nothing_heavy() -> None:
    code = (
        "import sys; from synth2_lightning.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'lightning', 'transformers', 'jsonargparse'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.endswith("[]\n")
    assert "synth2 fit --config mixed.yaml" in output


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"synth2 {__version__}\n"


def test_without_a_word_it_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "usage: synth2" in capsys.readouterr().out


def test_an_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fitt"])
    assert stop.value.code == 2
    assert "invalid choice: 'fitt'" in capsys.readouterr().err


def test_an_unknown_run_file_names_those_that_ship(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "mixd.yaml"])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert "error: There is no run file 'mixd.yaml', neither here" in error
    assert "Did you mean 'mixed.yaml'?" in error
    assert "mixed.yaml" in error


def test_a_run_file_is_found_by_bare_name_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config=mixed.yaml", "--print_config"])
    assert stop.value.code == 0
    assert "VisionLanguageModule" in capsys.readouterr().out


def test_configs_lie_at_the_top_of_a_checkout() -> None:
    assert (config_folder() / "mixed.yaml").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainer.max_stepz=3"], "max_stepz"),
        (["--model.init_args.image_encodr=x"], "image_encodr"),
        (["--model=no_such_package.Head"], "no_such_package"),
    ],
)
def test_a_typing_error_is_told_with_the_key(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "mixed.yaml", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.init_args.synthetic_share.init_args.share=0.3"], "error: A share of 0.3 of 64 pairs is 19.2 pairs"),
        (["--data.init_args.synthetic.init_args.shards=nowhere"], "error: The folder of shards is not at 'nowhere'"),
        (["--ckpt_path", "gone.ckpt"], "error: There is no checkpoint at 'gone.ckpt'"),
    ],
)
def test_what_parts_refuse_is_shown_without_a_traceback(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "mixed.yaml", *words])
    assert stop.value.code == 1
    assert message in capsys.readouterr().err


class BrokenError(Exception):
    """One that no user can act on."""


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_a_precision_that_casts_codebooks_is_refused(precision: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "mixed.yaml", f"--trainer.precision={precision}"])
    assert stop.value.code == 1
    told = " ".join(capsys.readouterr().err.split())
    assert f"error: trainer.precision is '{precision}', which would cast the frozen networks" in told
    assert "expected one of 32-true, bf16-mixed, 16-mixed" in told


@pytest.mark.parametrize("command", ["validate", "test"])
def test_weights_that_nobody_trained_are_not_scored(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([command, "--config", "mixed.yaml", "--ckpt_path=last"])
    assert stop.value.code == 1
    assert "error: There is no checkpoint (looked in runs/version_0/checkpoints)" in capsys.readouterr().err


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_no_strategy_runs_what_is_in_a_checkpoint(tmp_path: Path) -> None:
    touched, file, folder = tmp_path / "touched", tmp_path / "last.ckpt", tmp_path / "shards.ckpt"
    torch.save({"state_dict": {}, "global_step": 1, "more": Touch(touched)}, file)
    folder.mkdir()
    torch.save({"global_step": 1}, folder / "meta.pt")
    (folder / "__0.metadata").write_bytes(pickle.dumps(Touch(touched)))  # torch's second choice after .metadata
    for strategy in (FSDPStrategy(), ModelParallelStrategy()):
        with pytest.raises(ValueError, match=r"last.ckpt holds more than tensors .* nothing was run"):
            cli._check_checkpoint_content(file, strategy)
        with pytest.raises(FileNotFoundError, match=r"shards.ckpt lacks .*\.metadata"):
            cli._check_checkpoint_content(folder, strategy)
    assert not touched.exists()
    torch.save({"state_dict": {"weight": torch.ones(500)}, "global_step": 1}, file)
    cli._check_checkpoint_content(file, FSDPStrategy())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"last.ckpt is damaged"):
        cli._check_checkpoint_content(file, ModelParallelStrategy())
    with pytest.raises(IsADirectoryError, match=r"Merge it first: synth2 consolidate .*shards.ckpt"):
        cli._check_checkpoint_content(folder, DDPStrategy())


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth2_lightning.cli.run_trainer", Mock(side_effect=BrokenError))
    with pytest.raises(BrokenError):
        main(["fit"])


def test_a_message_of_ours_is_shown_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["weights", "gpt-5"])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--trainer.enable_progress_bar=false"], "Trainer was configured with `enable_progress_bar=False`"),
        (["--config", "overlays/fsdp1.yaml", "--trainer.accelerator=cpu"], "The strategy `fsdp` requires a GPU"),
        (["--trainer.barebones=true"], "`Trainer(barebones=True, logger="),
        (["--trainer.val_check_interval=1.5"], "`val_check_interval` should be an integer or a time-based duration"),
    ],
)
def test_settings_of_the_trainer_that_do_not_go_together_are_told(
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
    told = f"error: The trainer's settings do not go together. Lightning says: {reason}"
    assert told in capsys.readouterr().err


def test_deepspeed_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "mixed.yaml", "--config", "overlays/deepspeed.yaml"])
    assert stop.value.code == 1
    assert "DeepSpeedStrategy, and DeepSpeed is not installed here; expected it beside" in capsys.readouterr().err


def test_a_command_that_does_not_go_with_its_run_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    generator = "--model.init_args.generator=synth2_lightning.testing.TinyCaptionGenerator"
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "captions.yaml", generator, "--trainer.max_epochs=1"])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert "error: The command does not go with its run file. Lightning says: No `training_step()` method" in error


def test_export_writes_and_pushes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import synth2_lightning.export
    import synth2_lightning.sharing.hub

    export, push = Mock(return_value=tmp_path), Mock(return_value="https://hub/me/mine")
    monkeypatch.setattr(synth2_lightning.export, "export_captioner", export)
    monkeypatch.setattr(synth2_lightning.sharing.hub, "push_export", push)
    words = ["export", "runs/version_0", "mine", "--license", "mit", "--card", "a.json", "--card", "b"]
    main([*words, "--push-to", "me/mine"])
    export.assert_called_once_with("runs/version_0", Path("mine"), "mit", ["a.json", "b"], [])
    push.assert_called_once_with(tmp_path, "me/mine")
    assert capsys.readouterr().out == f"The captioner is in {tmp_path}\nIt is at https://hub/me/mine\n"


def test_export_to_a_wrong_name_is_refused_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", "runs/version_0", "mine", "--push-to", "mine"])
    assert stop.value.code == 1
    assert "error: The repository is called 'mine'; expected OWNER/NAME" in capsys.readouterr().err
