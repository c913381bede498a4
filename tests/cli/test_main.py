import inspect
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from synth2_lightning import __version__
from synth2_lightning.cli import main
from synth2_lightning.cli.arguments import make_parser, read_docstring
from synth2_lightning.cli.main import COMMANDS

HEAVY = {"torch", "lightning", "transformers", "jsonargparse", "pyarrow", "numpy", "yaml"}


@pytest.mark.parametrize("words", [["--help"], ["caption", "--help"], ["fit", "--confg", "x"]])
def test_help_and_typing_errors_import_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; from synth2_lightning.cli import main\n"
        f"try: main({words!r})\n"
        "except SystemExit: pass\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.endswith("[]\n")


@pytest.mark.parametrize(
    "words", [["caption", "nowhere", "a.jpg"], ["export", "nowhere", "--out", "x"], ["score", *"ab"]]
)
def test_wrong_paths_and_scores_import_no_torch(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "b").write_text('{"images": [], "annotations": [{"image_id": 1, "caption": "a dog"}]}')
    (tmp_path / "a").write_text('[{"image_id": 1, "caption": "a dog"}]')
    code = (
        "import sys; from synth2_lightning.cli import main\n"
        f"try: main({words!r})\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert process.stdout.endswith("False\n")
    assert ("CIDEr-D" if words[0] == "score" else "nowhere does not exist") in process.stdout + process.stderr


@pytest.mark.parametrize("is_terminal", [False, True])
def test_bars_of_other_libraries_are_for_terminals(is_terminal: bool) -> None:
    code = (
        "from synth2_lightning.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "from tqdm.auto import tqdm\n"
        "list(tqdm(range(3), desc='Loading weights'))"
    )
    terminal, error_stream = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))  # tqdm prints nothing if the terminal has no columns
    environment = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=error_stream if is_terminal else subprocess.PIPE,
        check=True,
    )
    os.close(error_stream)
    shown = os.read(terminal, 4096) if is_terminal else process.stderr
    os.close(terminal)
    assert (b"Loading weights" in shown) is is_terminal


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith("usage: synth2")
    assert "synth2 fit --config mixed.yaml" in shown
    assert "caption Write captions of images" in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"synth2 {__version__}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fitt"], ["'fitt'", "'fit'", "consolidate"]),
        (["exprot", "run"], ["'exprot'", "'export'"]),
        (["--verison"], ["'--verison'", "'--version'"]),
        (["fit", "--confg", "x"], ["'--confg'", "'--config'"]),
        (["fit", "--trainr.max_steps=3"], ["'--trainr'", "'--trainer'"]),
        (["caption", "run", "a.png", "--from-hub", "x"], ["'--from-hub'", "'--from_hub'"]),
        (["caption", "run"], ["IMAGES"]),
        (["select", "captions", "--out", "x", "--num", "many"], ["--num", "int", "'many'"]),
        (["select", "captions", "--out", "x", "--num", "2", "--by", "size"], ["--by", "'size'", "clusters"]),
        (["vocabulary", "captions.txt"], ["--out"]),
        (["demo", "run", "another"], ["another"]),
    ],
)
def test_wrong_words_are_named_with_what_is_near(
    words: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert [text for text in expected if text not in error] == []


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_example_of_a_command_fits_its_parser(name: str) -> None:
    words = read_docstring(COMMANDS[name]).example.split()
    assert words[:2] == ["synth2", name]
    assert make_parser(COMMANDS[name]).parse_command(words[2:])


@pytest.mark.parametrize("name", list(COMMANDS))
def test_options_of_commands_are_consistent(name: str) -> None:
    parameters = inspect.signature(COMMANDS[name]).parameters
    described = read_docstring(COMMANDS[name]).arguments
    assert list(described) == list(parameters)
    if name in ("export", "select", "deduplicate", "vocabulary", "consolidate", "report", "score", "caption"):
        assert parameters["out"].kind is inspect.Parameter.KEYWORD_ONLY
    if name in ("caption", "demo", "export"):
        assert next(iter(parameters)) == "run"
        assert parameters["trust"].default == ()
