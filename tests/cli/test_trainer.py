from pathlib import Path

import pytest
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from synth2_lightning.cli import main
from synth2_lightning.cli.errors import UsageError
from synth2_lightning.cli.trainer import OPTIONS, TRAINER_COMMANDS, run_trainer


class ParserOnly(LightningCLI):
    def parse_arguments(self, parser: LightningArgumentParser, args: object) -> None:
        found = {
            option.partition(".")[0]
            for each in self._subcommand_parsers.values()
            for action in each._actions
            for option in action.option_strings
            if option.startswith("--")
        }
        assert found | {"--trust", "--resume_with_changes"} == OPTIONS
        assert set(self._subcommand_parsers) == set(TRAINER_COMMANDS)
        raise SystemExit(0)


def test_the_known_options_are_those_of_lightning() -> None:
    with pytest.raises(SystemExit):
        ParserOnly(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            args=["fit"],
        )


@pytest.mark.parametrize(("command", "first"), [("fit", "mixed.yaml"), ("predict", "tokenize.yaml")])
def test_a_command_without_a_run_file_names_one(command: str, first: str) -> None:
    with pytest.raises(UsageError, match=rf"{command} needs a run file.*{command} --config {first}"):
        run_trainer([command, "--trainer.max_steps=1"])


@pytest.mark.parametrize("words", [["mine.yaml"], ["--config", "mixed.yaml", "mine.yaml"], ["--config=a", "mine.yaml"]])
def test_a_run_file_without_an_option_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"'mine\.yaml' follows no option; expected .*--config mine\.yaml"):
        run_trainer(["fit", *words])


def test_an_unknown_key_without_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("modle: {}\n")
    with pytest.raises(UsageError, match=r"'modle'\. Did you mean 'model'\?.*mine\.yaml"):
        run_trainer(["fit", "--config", str(tmp_path / "mine.yaml")])


@pytest.mark.parametrize("words", [["--ckpt_path", "gone.ckpt"], ["--ckpt_path=gone.ckpt"]])
def test_a_checkpoint_that_does_not_exist_is_refused_before_anything_is_loaded(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("synth2_lightning.cli.lightning_cli.run_lightning", None)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "mixed.yaml", *words])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert "error: There is no checkpoint at 'gone.ckpt'" in error
    assert str(tmp_path) in error


def test_a_link_to_a_checkpoint_that_was_not_completed_is_explained(tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    last.symlink_to("step=5.ckpt")
    with pytest.raises(FileNotFoundError, match=r"last\.ckpt.*step=5\.ckpt.*--ckpt_path=last"):
        run_trainer(["fit", "--config", "mixed.yaml", f"--ckpt_path={last}"])


def test_home_folders_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "gone.ckpt")):
        run_trainer(["fit", "--config", "mixed.yaml", "--ckpt_path=~/gone.ckpt"])
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "gone.yaml")):
        run_trainer(["fit", "--config=~/gone.yaml"])
