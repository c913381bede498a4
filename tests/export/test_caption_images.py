import json
import os
import re
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

from synth2_lightning.cli import main
from synth2_lightning.export.captioner import BATCH_SIZE, Captioner
from synth2_lightning.export.image_inputs import MAX_PIXELS

NUM_IMAGES = 20


@pytest.fixture
def run(tmp_path: Path) -> str:
    """Return the checkpoint of an untrained captioner, as `synth2 fit` writes it."""
    from synth2_lightning.modules.captioning import VisionLanguageModule
    from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler

    parts = {"image_encoder": "TinyImageTokenizer", "resampler": "TinyResampler", "decoder": "TinyDecoder"}
    settings: dict[str, Any] = {
        name: {"class_path": f"synth2_lightning.testing.{part}"} for name, part in parts.items()
    }
    settings["_instantiator"] = "lightning.pytorch.cli.instantiate_module"
    state = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder()).state_dict()
    checkpoint = {"state_dict": state, "hyper_parameters": settings, "pytorch-lightning_version": "2.6.6"}
    torch.save(checkpoint, tmp_path / "run.ckpt")
    return str(tmp_path / "run.ckpt")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(NUM_IMAGES):
        Image.new("RGB", (10, 8), (10 * number,) * 3).save(folder / f"{number:02d}.png")
    return folder


def run_command(words: Sequence[str]) -> object:
    try:
        main(["caption", "--device", "cpu", *words])
    except SystemExit as stop:
        return stop.code
    return 0


def names_in(out: Path) -> list[str]:
    return [Path(json.loads(line)["image"]).name for line in out.read_text().splitlines()]


def test_only_text_is_written_to_the_standard_output(
    run: str, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command([run, str(images), "--batch_size", "3"]) == 0
    printed = capsys.readouterr()
    lines = [line.split("\t") for line in printed.out.splitlines()]
    assert [Path(name).name for name, _ in lines] == [f"{number:02d}.png" for number in range(NUM_IMAGES)]
    assert "20/20" in printed.err


def test_bad_images_are_named_and_skipped_with_an_exit_code(
    run: str, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "05.png").write_bytes((images / "05.png").read_bytes()[:40])
    (images / "06.png").touch()
    (images / "06.png").write_bytes(b"")
    out = images.parent / "out.jsonl"
    words = [run, str(images), str(images / "gone.png"), "--out", str(out), "--batch_size", "4"]
    assert run_command(words) == 3
    error = capsys.readouterr().err
    for name in ("05.png", "06.png", "gone.png"):
        assert name in error
    assert re.search(r"caption\w*: 3\b", error)
    assert len(names_in(out)) == NUM_IMAGES - 2

    Image.new("RGB", (3, 3)).save(images / "05.png")  # a repaired image is captioned in the next run
    assert run_command(words) == 3
    assert names_in(out)[-1] == "05.png"
    assert len(names_in(out)) == NUM_IMAGES - 1


def test_a_second_run_makes_what_is_missing_and_another_model_is_refused(
    run: str, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = images.parent / "out.jsonl"
    assert run_command([run, f"{images}/0*.png", "--out", str(out)]) == 0
    first = out.read_bytes()
    assert run_command([run, str(images), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(first)
    assert sorted(names_in(out)) == [f"{number:02d}.png" for number in range(NUM_IMAGES)]
    assert "10 of 20" in capsys.readouterr().err
    assert run_command([run, str(images), "--out", str(out), "--num_beams", "2"]) == 1
    assert re.search(r"generation\.num_beams\b.*\b1\b.*\b2\b", capsys.readouterr().err)


def test_ctrl_c_keeps_what_was_written(
    run: str, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop_after_two(self: Captioner, *arguments: Any) -> Any:
        stream = whole(self, *arguments)
        yield next(stream)
        yield next(stream)
        raise KeyboardInterrupt

    whole = Captioner.stream
    monkeypatch.setattr(Captioner, "stream", stop_after_two)
    out = images.parent / "out.jsonl"
    assert run_command([run, str(images), "--out", str(out), "--batch_size", "4"]) == 130
    assert len(names_in(out)) == 8
    assert "same command" in capsys.readouterr().err


def test_addresses_and_missing_files_are_reported_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("synth2_lightning.export.captioner.load", Mock(side_effect=AssertionError))
    assert run_command(["run", "http://127.0.0.1:9/a.png"]) == 1
    assert "--allow_urls" in capsys.readouterr().err
    assert run_command([".", "nothere/"]) == 1
    assert "nothere/: there is no such file" in capsys.readouterr().err


def test_coco_results_are_scored(run: str, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references = {
        "images": [{"id": 100 + number, "file_name": f"{number:02d}.png"} for number in range(NUM_IMAGES)],
        "annotations": [{"image_id": 100 + number, "caption": "a dog"} for number in range(NUM_IMAGES)],
    }
    annotations, out = images.parent / "captions.json", images.parent / "results.json"
    annotations.write_text(json.dumps(references))
    assert run_command([run, str(images), "--out", str(out)]) == 1
    assert "--annotations" in capsys.readouterr().err
    assert run_command([run, str(images), "--out", str(out), "--annotations", str(annotations)]) == 0
    assert [record["image_id"] for record in json.loads(out.read_text())] == [100 + n for n in range(NUM_IMAGES)]
    main(["score", str(out), str(annotations)])
    assert "20 images" in capsys.readouterr().out


def test_an_address_that_fails_is_a_bad_image(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([run, "http://127.0.0.1:9/a.png", "--allow_urls"]) == 3
    assert re.search(r"http://127\.0\.0\.1:9/a\.png.*fetch", capsys.readouterr().err)


def test_the_defaults_of_the_command_are_those_of_the_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"(default: {BATCH_SIZE})" in shown
    assert str(MAX_PIXELS) in shown


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_run_without_a_traceback(run: str, images: Path) -> None:
    words = [sys.executable, "-m", "synth2_lightning", "caption", run, str(images), "--batch_size", "1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        error = process.stderr.read()
    assert process.returncode == 141
    assert "Traceback" not in error


@pytest.mark.slow
def test_a_killed_run_resumes_and_ends_like_an_uninterrupted_one(run: str, images: Path) -> None:
    for number in range(3000):
        Image.new("RGB", (64, 64), (number % 256,) * 3).save(images / f"more-{number:04d}.png")
    out = images.parent / "out.jsonl"
    words = [sys.executable, "-m", "synth2_lightning", "caption", run, str(images)]
    words += ["--batch_size", "2", "--out", str(out)]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        while not out.exists() or out.stat().st_size < 10_000:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = [line for line in out.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert 0 < len(kept) < NUM_IMAGES + 3000

    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    assert out.read_bytes().startswith(b"".join(kept))
    names = names_in(out)
    assert sorted(names) == sorted(path.name for path in images.iterdir())
