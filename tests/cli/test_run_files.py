from pathlib import Path

import pytest

from synth2_lightning.cli import main
from synth2_lightning.cli.run_files import find_run_files, run_file_folder, split_trust, typed_names


def test_configs_are_at_the_top_of_a_checkout() -> None:
    assert (run_file_folder() / "mixed.yaml").is_file()


def test_an_unknown_run_file_names_those_that_ship(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "mixd.yaml"])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert "error: There is no run file 'mixd.yaml'" in error
    assert "'mixed.yaml'?" in error
    listed = error.partition("one of: ")[2].rstrip(".\n").split(", ")
    assert listed[0] == "mixed.yaml"
    assert sorted(listed) == sorted(path.name for path in run_file_folder().glob("*.yaml"))


def test_a_run_file_is_found_by_bare_name_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config=mixed.yaml", "--print_config"])
    assert stop.value.code == 0
    assert "VisionLanguageModule" in capsys.readouterr().out


def test_a_file_of_the_current_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mixed.yaml").write_text("trainer: {max_steps: 3}\n")
    assert find_run_files(["fit", "-c", "mixed.yaml", "--config"]) == ["fit", "-c", "mixed.yaml", "--config"]


def test_what_is_typed_is_trusted_and_files_are_not() -> None:
    words, trust = split_trust(
        ["fit", "--trust=mine", "--config", "a.yaml", "--trust", "ours", "--model", "heads.Head"]
    )
    assert words == ["fit", "--config", "a.yaml", "--model", "heads.Head"]
    assert trust == ["mine", "ours"]
    assert typed_names([*words, "--ckpt_path", "my.ckpt", "--x=os.path.join"]) == ["heads", "os.path.join"]
