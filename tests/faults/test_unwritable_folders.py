"""Folders that cannot be written to, and other errors of the system: a message names them, without a traceback.

``COMMANDS`` and ``WRITERS`` write where a file is in place of the folder, which also prevents writes by root.
"""

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from synth2_lightning.callbacks.checkpoint_io import CheckedCheckpointIO
from synth2_lightning.cli import main
from synth2_lightning.cli.errors import message_for_user
from synth2_lightning.generators.completion_cache import CompletionCache
from synth2_lightning.io.atomic import write_files
from synth2_lightning.shards.caption_set import CaptionSetWriter
from synth2_lightning.shards.image_captions import ImageCaptionFile
from synth2_lightning.shards.writer import ShardWriter

COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "vocabulary": lambda out: ["vocabulary", "captions.txt", "--out", str(out), "--min_count", "1"],
    "deduplicate": lambda out: ["deduplicate", "captions.txt", "--out", str(out)],
    "select": lambda out: ["select", "captions.jsonl", "--out", str(out), "--num", "2", "--by", "class"],
    "score": lambda out: ["score", "predictions.json", "references.json", "--out", str(out)],
    "consolidate": lambda out: ["consolidate", "sharded", "--out", str(out / "whole.ckpt")],
    "weights": lambda _: ["weights", "efficientnet-lite0"],
    "fit": lambda out: ["fit", "--config", "tiny.yaml", f"--trainer.logger.init_args.save_dir={out}"],
    "fit without logger": lambda out: [
        *("fit", "--config", "tiny.yaml", "--trainer.logger=false", f"--trainer.default_root_dir={out}"),
    ],
}  # fmt: skip
REFERENCES = {
    "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
    "annotations": [{"image_id": 1, "caption": "a red circle"}, {"image_id": 2, "caption": "two blue squares"}],
}
RUN_FILE = """
trainer:
  accelerator: cpu
  logger: {class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: runs}}
  callbacks: [{class_path: lightning.pytorch.callbacks.ModelCheckpoint}]
  enable_progress_bar: false
  enable_model_summary: false
  max_steps: 1
model:
  class_path: synth2_lightning.modules.captioning.VisionLanguageModule
  init_args:
    image_encoder: {class_path: synth2_lightning.testing.TinyImageTokenizer}
    resampler: {class_path: synth2_lightning.testing.TinyResampler}
    decoder: {class_path: synth2_lightning.testing.TinyDecoder}
data:
  class_path: synth2_lightning.datamodules.real.RealDataModule
  init_args:
    train: {class_path: synth2_lightning.scenes.source.ScenesSource, init_args: {split: train, num_images: 4}}
    batch_size: 2
    image_size: 8
"""


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from torch.distributed.checkpoint.state_dict_saver import save

    monkeypatch.chdir(tmp_path)
    Path("captions.txt").write_text("a red circle\ntwo blue squares\n")
    rows = [{"caption": "a red circle", "class_name": "circle"}, {"caption": "a square", "class_name": "square"}]
    Path("captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("references.json").write_text(json.dumps(REFERENCES))
    Path("predictions.json").write_text(json.dumps([{"image_id": 1, "caption": "a"}, {"image_id": 2, "caption": "b"}]))
    Path("tiny.yaml").write_text(RUN_FILE)
    save({"state_dict": {"w": torch.ones(2)}}, checkpoint_id="sharded", no_dist=True)
    torch.save({"global_step": 1}, "sharded/meta.pt")
    return tmp_path


@pytest.mark.filterwarnings("ignore")  # of torch and Lightning, about such small runs
@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_in_place_of_a_folder_is_reported_in_a_sentence(
    command: str, inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (inputs / "in-the-way").touch()
    monkeypatch.setenv("SYNTH2_CACHE", str(inputs / "in-the-way"))
    with pytest.raises(SystemExit) as stop:
        main(COMMANDS[command](inputs / "in-the-way" / "out"))
    error = capsys.readouterr().err
    assert stop.value.code == 1
    assert "in-the-way" in error
    assert "xpected" in error
    assert "Traceback" not in error


WRITERS: dict[str, Callable[[Path], object]] = {
    "captions": lambda place: ImageCaptionFile(place / "captions.jsonl", "jsonl", {}),
    "shards": lambda place: ShardWriter(place).start({"seed": 0}),
    "caption set": lambda place: CaptionSetWriter(place).start({"seed": 0}),
    "answers": CompletionCache,
    "checkpoint": lambda place: CheckedCheckpointIO().save_checkpoint({"global_step": 1}, place / "last.ckpt"),
    "export": lambda place: write_files(place / "captioner").__enter__(),
    "weights": lambda place: write_files(place).__enter__(),
}


@pytest.mark.parametrize("what", WRITERS)
@pytest.mark.parametrize("place", ["in-the-way", "in-the-way/out", "in-the-way/a/b"])
def test_every_write_reports_what_prevents_it(what: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "in-the-way").touch()
    with pytest.raises(OSError, match="in-the-way") as caught:
        WRITERS[what](tmp_path / place)
    message = message_for_user(caught.value)
    assert message is not None
    assert "in-the-way" in message
    assert "xpected a f" in message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError(errno.EROFS, "Read-only file system", "runs/config.yaml"),
            r"runs/config\.yaml .*Read-only file system",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), r"\bruns\b.*written.*Permission denied"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), r"a/b.*written.*Not a directory"),
        (FileExistsError(errno.EEXIST, "File exists", "runs"), r"\bruns\b.*written.*File exists"),
        (OSError(errno.ENOSPC, "No space left on device"), r"command.*No space left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "x"), r"\bx\b.*written.*quota"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), r"xxx.*written.*too long"),
    ],
)
def test_system_errors_of_a_folder_are_reported_for_every_library(
    error: OSError, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(*_: object) -> None:
        raise error  # raised outside of the package

    monkeypatch.setattr("synth2_lightning.cli.lightning_cli.run_lightning", write)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "mixed.yaml"])
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert re.search(expected, message)
    assert "xpected a file or folder" in message


def test_other_errors_of_the_system_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr("synth2_lightning.cli.lightning_cli.run_lightning", connect)
    with pytest.raises(ConnectionRefusedError):
        main(["fit", "--config", "mixed.yaml"])
