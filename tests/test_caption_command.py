import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from PIL import Image

from synth2_lightning.captioner import BATCH_SIZE, MAX_PIXELS, Captioner
from synth2_lightning.cli import main

NUM_PICTURES = 20


@pytest.fixture
def run(tmp_path: Path) -> str:
    """A checkpoint as `synth2 fit` writes it; what it says does not matter here."""
    from synth2_lightning.modules.captioning import VisionLanguageModule
    from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler

    parts = {"image_encoder": "TinyImageTokenizer", "resampler": "TinyResampler", "decoder": "TinyDecoder"}
    settings: dict[str, Any] = {
        name: {"class_path": f"synth2_lightning.testing.{part}"} for name, part in parts.items()
    }
    settings["_instantiator"] = "lightning.pytorch.cli.instantiate_module"
    state = VisionLanguageModule(TinyImageTokenizer(), TinyResampler, TinyDecoder()).state_dict()
    checkpoint = {"state_dict": state, "hyper_parameters": settings, "pytorch-lightning_version": "2.6.6"}
    torch.save(checkpoint, tmp_path / "run.ckpt")
    return str(tmp_path / "run.ckpt")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(NUM_PICTURES):
        Image.new("RGB", (10, 8), (10 * number,) * 3).save(folder / f"{number:02d}.png")
    return folder


def run_command(words: Sequence[str]) -> object:
    with pytest.raises(SystemExit) as stop:
        main(["caption", "--device", "cpu", *words])
    return stop.value.code


def names_in(out: Path) -> list[str]:
    return [Path(json.loads(line)["picture"]).name for line in out.read_text().splitlines()]


def test_text_goes_to_the_standard_output_and_nothing_else(
    run: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([str(pictures), "--checkpoint", run, "--batch-size", "3"]) == 0
    printed = capsys.readouterr()
    lines = [line.split("\t") for line in printed.out.splitlines()]
    assert [Path(name).name for name, _ in lines] == [f"{number:02d}.png" for number in range(NUM_PICTURES)]
    assert "20/20" in printed.err


def test_bad_pictures_are_named_and_skipped_and_the_exit_code_says_so(
    run: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "05.png").write_bytes((pictures / "05.png").read_bytes()[:40])
    (pictures / "06.png").touch()
    (pictures / "06.png").write_bytes(b"")
    out = pictures.parent / "out.jsonl"
    words = [str(pictures), str(pictures / "gone.png"), "--checkpoint", run, "--out", str(out), "--batch-size", "4"]
    assert run_command(words) == 3
    error = capsys.readouterr().err
    for name in ("05.png", "06.png", "gone.png"):
        assert name in error
    assert "without a caption: 3" in error
    assert len(names_in(out)) == NUM_PICTURES - 2

    Image.new("RGB", (3, 3)).save(pictures / "05.png")  # once repaired, it is made up for
    assert run_command(words) == 3
    assert names_in(out)[-1] == "05.png"
    assert len(names_in(out)) == NUM_PICTURES - 1


def test_a_second_run_makes_what_is_missing_and_another_model_is_refused(
    run: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = pictures.parent / "out.jsonl"
    assert run_command([f"{pictures}/0*.png", "--checkpoint", run, "--out", str(out)]) == 0
    first = out.read_bytes()
    assert run_command([str(pictures), "--checkpoint", run, "--out", str(out)]) == 0
    assert out.read_bytes().startswith(first)
    assert sorted(names_in(out)) == [f"{number:02d}.png" for number in range(NUM_PICTURES)]
    assert "10 of 20 pictures have their caption" in capsys.readouterr().err
    assert run_command([str(pictures), "--checkpoint", run, "--out", str(out), "--num-beams", "2"]) == 1
    assert "generation.num_beams is 1 there and 2 in this run" in capsys.readouterr().err


def test_ctrl_c_keeps_what_was_written(
    run: str, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop_after_two(self: Captioner, *arguments: Any) -> Any:
        stream = whole(self, *arguments)
        yield next(stream)
        yield next(stream)
        raise KeyboardInterrupt

    whole = Captioner.stream
    monkeypatch.setattr(Captioner, "stream", stop_after_two)
    out = pictures.parent / "out.jsonl"
    assert run_command([str(pictures), "--checkpoint", run, "--out", str(out), "--batch-size", "4"]) == 130
    assert len(names_in(out)) == 8
    assert "The same command goes on" in capsys.readouterr().err


def test_addresses_and_missing_files_are_told_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("synth2_lightning.captioner.load_captioner", Mock(side_effect=AssertionError))
    assert run_command(["http://127.0.0.1:9/a.png", "--checkpoint", "run"]) == 1
    assert "Add --allow-urls to allow it" in capsys.readouterr().err


def test_an_address_that_fails_is_a_bad_picture(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["http://127.0.0.1:9/a.png", "--allow-urls", "--checkpoint", run]) == 3
    assert "The picture http://127.0.0.1:9/a.png cannot be fetched" in capsys.readouterr().err


def test_the_defaults_of_the_command_are_those_of_the_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"(default: {BATCH_SIZE})" in shown
    assert str(MAX_PIXELS) in shown


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_run_without_a_traceback(run: str, pictures: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "synth2_lightning",
        "caption",
        str(pictures),
        "--checkpoint",
        run,
        "--batch-size",
        "1",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        error = process.stderr.read()
    assert process.returncode == 141
    assert "Traceback" not in error


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_ends_as_if_it_had_not_been(run: str, pictures: Path) -> None:
    for number in range(3000):
        Image.new("RGB", (64, 64), (number % 256,) * 3).save(pictures / f"more-{number:04d}.png")
    out = pictures.parent / "out.jsonl"
    words = [sys.executable, "-m", "synth2_lightning", "caption", str(pictures), "--checkpoint", run]
    words += ["--batch-size", "2", "--out", str(out)]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        while not out.exists() or out.stat().st_size < 10_000:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = [line for line in out.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert 0 < len(kept) < NUM_PICTURES + 3000

    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    assert out.read_bytes().startswith(b"".join(kept))
    names = names_in(out)
    assert sorted(names) == sorted(path.name for path in pictures.iterdir())
