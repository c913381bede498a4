import shutil
import subprocess
from pathlib import Path

import pytest

from synth2_lightning.cli import main
from synth2_lightning.cli.completion import write_completion
from synth2_lightning.cli.main import COMMANDS

BASH = shutil.which("bash") or ""


def complete(folder: Path, *words: str) -> set[str]:
    """Return bash's completions of the last word."""
    (folder / "completion").write_text(write_completion("bash", COMMANDS))
    code = (
        f"source completion; COMP_WORDS=(synth2 {' '.join(words)}); COMP_CWORD={len(words)}; "
        "_shtab_synth2; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    process = subprocess.run([BASH, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return set(process.stdout.split())


@pytest.mark.skipif(not BASH, reason="needs bash")
def test_bash_completes_commands_options_run_files_and_paths(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "mine.txt").touch()
    assert {"cache", "caption", "consolidate", "completion"} == complete(tmp_path, "c")
    assert {"--ckpt_path", "--config"} == complete(tmp_path, "fit", "--c")
    assert {"mixed.yaml", "mine.yaml"} == complete(tmp_path, "fit", "--config", "mi")
    assert {"overlays/strategy/ddp.yaml"} == complete(tmp_path, "fit", "--config", "overlays/strategy/dd")
    assert {"--out"} <= complete(tmp_path, "export", "--o")
    assert {"mine.yaml", "mine.txt"} == complete(tmp_path, "caption", "run", "mi")
    assert {"zsh"} == complete(tmp_path, "completion", "z")


def test_the_command_prints_a_script_for_zsh(capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "zsh"])
    output = capsys.readouterr().out
    assert output.startswith("#compdef synth2")
    assert "mixed.yaml" in output
    assert '"--num_beams[' in output
