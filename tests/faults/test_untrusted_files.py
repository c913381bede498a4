"""Exports, run files and modules of others: they fetch, read and run nothing, and do not control the terminal.

``KINDS`` lists exports whose description names what an export must not.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from drivers import TINY_MODEL, VOCABULARY

from synth2_lightning.cli import main
from synth2_lightning.cli.errors import message_for_user
from synth2_lightning.export.exported import load_exported
from synth2_lightning.export.folder import CONFIG, FORMAT
from synth2_lightning.io.console import visible
from synth2_lightning.io.locations import limit_locations, locate_model, note_locations, resolve


def export(folder: Path, **parts: Any) -> object:
    """Load an export with an untrusted description."""
    place = folder / "bad-export"
    place.mkdir()
    (place / "files").mkdir()
    model = {
        "class_path": "synth2_lightning.modules.captioning.VisionLanguageModule",
        "init_args": {**TINY_MODEL, **parts},
    }
    empty: dict[str, Any] = {"codebooks": {}, "frozen_parts": {}, "versions": {}}
    (place / CONFIG).write_text(json.dumps({"format": FORMAT, "format_version": 1, "model": model, **empty}))
    return load_exported(place)


def new_words(folder: Path, tokenizer: Any) -> object:
    config = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 32}
    return decoder(folder, "NewLanguageModel", config=config, tokenizer=tokenizer)


def old_words(folder: Path, **arguments: Any) -> object:
    return decoder(folder, "PretrainedLanguageModel", **arguments)


def decoder(folder: Path, name: str, **arguments: Any) -> object:
    source = {"class_path": f"synth2_lightning.decoders.language_model.{name}", "init_args": arguments}
    prefix = {"class_path": "synth2_lightning.decoders.prefix.PrefixDecoder", "init_args": {"language_model": source}}
    return export(folder, decoder=prefix)


def encoder(folder: Path, name: str, **arguments: Any) -> object:
    return export(folder, image_encoder={"class_path": f"synth2_lightning.encoders.{name}", "init_args": arguments})


def lies_here(folder: Path, name: str) -> str:
    """Create a tokenizer outside of the export, and return its name."""
    (folder / name).symlink_to(resolve(VOCABULARY, "words"))
    return name


KINDS: dict[str, Callable[[Path], object]] = {
    "a tokenizer on the Hub": lambda folder: new_words(folder, "bad/words"),
    "a tokenizer on the Hub, by one word": lambda folder: new_words(folder, "bad"),
    "a language model on the Hub": lambda folder: old_words(folder, model="bad/model"),
    "a language model on the Hub, with a GGUF file": lambda folder: old_words(
        folder, model="bad/model", gguf_file="model.gguf"
    ),
    "a VQ-GAN on the Hub": lambda folder: encoder(folder, "vqgan.VQGANTokenizer", model="bad/vqgan"),
    "weights of timm": lambda folder: encoder(folder, "timm.TimmEncoder", model="tf_efficientnet_lite0"),
    "a model that timm would fetch": lambda folder: encoder(folder, "timm.TimmEncoder", model="hf-hub:bad/model"),
    "weights of open_clip": lambda folder: encoder(
        folder, "open_clip.OpenClipEncoder", model="ViT-B-32", pretrained="openai"
    ),
    "a text tower that open_clip would fetch": lambda folder: encoder(
        folder, "open_clip.OpenClipEncoder", model="roberta-ViT-B-32", pretrained="here://files"
    ),
    "an architecture that open_clip would fetch": lambda folder: encoder(
        folder, "open_clip.OpenClipEncoder", model="hf-hub:bad/model", pretrained="here://files"
    ),
    "an address": lambda folder: new_words(folder, "https://bad.example/words"),
    "an address of this machine": lambda folder: new_words(folder, (folder / lies_here(folder, "bad")).as_uri()),
    "a folder of the user": lambda folder: new_words(folder, str(folder / lies_here(folder, "bad"))),
    "a folder beside": lambda folder: new_words(folder, f"../{folder.name}/{lies_here(folder, 'bad')}"),
    "a folder of the current one": lambda folder: new_words(folder, f"./{lies_here(folder, 'bad')}"),
    "a folder of the current one, by its name": lambda folder: new_words(folder, lies_here(folder, "bad")),
    "a folder of the home": lambda folder: new_words(folder, "~/bad"),
    "a way out of the export": lambda folder: new_words(folder, "here://files/../../bad"),
    "a way out of a package": lambda folder: new_words(folder, "package://synth2_lightning/../../bad"),
    "a way out of the weights": lambda folder: new_words(folder, "weights://all-minilm-l6-v2/../../bad"),
    "a GGUF file elsewhere": lambda folder: old_words(folder, model="here://files", gguf_file="../../bad.gguf"),
    "a GGUF file of the system": lambda folder: old_words(
        folder, model="here://files", gguf_file=str(folder / lies_here(folder, "bad"))
    ),
    "a folder of a model elsewhere": lambda folder: encoder(
        folder, "vqgan.VQGANTokenizer", model="here://files", subfolder="../../bad"
    ),
    "a place that is no text": lambda folder: new_words(folder, {"class_path": "bad.Words"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_reads_only_its_own_files_and_requests_nothing_from_the_hub(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - ValueError, or an error of a library
        KINDS[kind](tmp_path)
    message = message_for_user(caught.value)
    assert message is not None, f"synth2 would end in a traceback: {caught.value!r}"
    assert "xpected" in message
    assert "huggingface.co" not in message
    assert not isinstance(caught.value, OSError), "the location was accessed"


def test_allowed_models_are_requested_from_the_hub(tmp_path: Path) -> None:
    with limit_locations(tmp_path, from_hub=["good/words"]):
        assert locate_model("good/words", "tokenizer") == "good/words"
        with pytest.raises(ValueError, match=r"'bad/words'.*--from_hub bad/words"):
            locate_model("bad/words", "tokenizer")
    with note_locations() as noted:
        assert locate_model("bad/words", "tokenizer") == "bad/words"
    assert noted == {"hub://bad/words"}  # an export may name it when it is loaded


def test_files_inside_of_an_export_and_of_packages_are_read(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "words.json").touch()
    with limit_locations(tmp_path):
        assert resolve(tmp_path / "files" / "words.json", "words").is_file()
        folder = resolve(VOCABULARY, "words")
        assert resolve(folder / "tokenizer.json", "words").is_file()
        with pytest.raises(ValueError, match=r"'/etc/passwd'.*folder"):
            resolve("/etc/passwd", "words")


# Run files and names with control sequences for the terminal.

ESCAPES = {
    "a key": '{"\\e]0;owned\\a": 1}',
    "a value": 'trainer: {max_steps: "\\e[2J"}',
    "a class": 'model: {class_path: "bad\\u009b2J"}',
    "an argument of a class": 'data: {class_path: RealDataModule, init_args: {"\\u202e": 1}}',
}


@pytest.mark.parametrize("kind", ESCAPES)
def test_a_run_file_cannot_control_the_terminal(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text(ESCAPES[kind])
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(tmp_path / "bad.yaml")])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("error: ")
    assert visible(error) == error


@pytest.mark.parametrize(
    "words",
    [["caption", "--\x1b[2J"], ["\x1b]0;owned\x07"], ["weights", "\x9b2J"], ["report", "\x1b[2J"], ["demo", "\u202e"]],
)
def test_arguments_that_a_shell_made_of_names_cannot_control_the_terminal(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    error = capsys.readouterr().err
    assert "error: " in error
    assert visible(error) == error


# Modules in the current folder with the names of imported modules; each writes to a file when it is run.

STARTS = [[str(Path(sys.executable).with_name("synth2"))], [sys.executable, "-m", "synth2_lightning"]]
# Modules that `python -m` imports before the package, and searches in the current folder.
OF_PYTHON_ITSELF = (
    *("importlib", "warnings", "contextlib", "collections", "keyword", "operator", "reprlib", "types"),
    *("functools", "pkgutil", "typing", "re", "copyreg", "enum", "inspect"),
)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return a folder with one module for each installed module and each of the standard library."""
    installed = {path.stem for path in Path(torch.__file__).parents[1].iterdir() if path.stem.isidentifier()}
    names = {*sys.stdlib_module_names, *installed, "sitecustomize", "usercustomize"}
    for name in names - {"synth2_lightning"}:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'a').write({name!r})\n")
    (tmp_path / "captions.txt").write_text("a red circle\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS, ids=["the command", "the module"])
def test_no_module_of_the_current_folder_is_imported(start: list[str], hostile: Path) -> None:
    for name in OF_PYTHON_ITSELF if "-m" in start else ():
        (hostile / f"{name}.py").unlink()
    command = [*start, "vocabulary", "captions.txt", "--out", "out", "--min_count", "1"]
    ran = subprocess.run(command, cwd=hostile, capture_output=True, text=True, check=False)
    assert not (hostile / "RAN").exists(), (hostile / "RAN").read_text()
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_processes_that_a_command_starts_import_nothing_from_the_current_folder(hostile: Path) -> None:
    """Starts processes as ranks (``python -m``), spawned workers (``python -c``) and pip are started."""
    code = (
        "import os, subprocess, sys; from multiprocessing import get_context\n"
        "from synth2_lightning.cli import main\n"
        "if __name__ == '__main__':\n"
        "    try: main(['--version'])\n"
        "    except SystemExit: pass\n"
        "    worker = get_context('spawn').Process(target=print); worker.start(); worker.join()\n"
        "    subprocess.run([sys.executable, '-c', 'import json, yaml'], check=True)\n"
        "    subprocess.run([sys.executable, '-m', 'synth2_lightning', '--version'], check=True)\n"
    )
    (hostile / "scripts").mkdir()
    (hostile / "scripts" / "script.py").write_text(code)
    command = [sys.executable, str(hostile / "scripts" / "script.py")]
    ran = subprocess.run(command, cwd=hostile, capture_output=True, text=True, check=False, env={**os.environ})
    assert not (hostile / "RAN").exists(), (hostile / "RAN").read_text()
    assert ran.returncode == 0, ran.stderr
