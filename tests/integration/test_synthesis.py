"""Synthesis from captions to shards: interrupted runs resume on one and on two processes, with equal results."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch import Trainer

from synth2_lightning.callbacks.shard_writer import ShardWriterCallback
from synth2_lightning.cli import main
from synth2_lightning.datamodules.captions import CaptionDataModule, record_seed
from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.io.fingerprints import fingerprint_texts
from synth2_lightning.modules.synthesis import SynthesisModule
from synth2_lightning.scenes.source import ScenesSource
from synth2_lightning.sources.caption_table import CaptionTable
from synth2_lightning.sources.photo_captions import PhotoCaptions
from synth2_lightning.testing import TinyImageGenerator
from synth2_lightning.types import CaptionBatch, TokenizedImages, VQTokens

pytestmark = pytest.mark.filterwarnings("ignore:Total length of `PredictBatches` across ranks is zero")
ROWS = [
    {"caption": f"image {number}", "id": f"k{number}", "of": f"class {number % 3}", "image": number % 3}
    for number in range(23)
]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = tmp_path / "captions.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


class Synthesis(SynthesisModule):
    """Records its keys, and fails in the batch ``fail_in``."""

    def __init__(self, generator: TinyImageGenerator, fail_in: int | None = None) -> None:
        super().__init__(generator)
        self.fail_in = fail_in
        self.keys: list[str] = []

    def predict_step(self, batch: CaptionBatch, batch_idx: int) -> TokenizedImages:  # type: ignore[override]
        if batch_idx == self.fail_in:
            raise KeyError("killed")
        self.keys += batch.keys
        return super().predict_step(batch, batch_idx)


def synthesize(table: Path, folder: str, salt: int = 0, fail_in: int | None = None, **settings: Any) -> Synthesis:
    source = CaptionTable(str(table), key_column="id", class_column="of", image_id_column="image")
    module = Synthesis(TinyImageGenerator(salt), fail_in)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ShardWriterCallback(str(table.parent / folder), records_per_part=4)],
    )
    trainer.predict(module, CaptionDataModule(source, **{"batch_size": 3, **settings}))
    return module


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return all records of a folder by key; check that they are unique, and that no part is incomplete."""
    manifest = json.loads((folder / "manifest.json").read_text())
    parts = sorted(path.name for path in folder.glob("part-*"))
    assert parts == sorted(manifest["parts"])
    rows = [row for part in parts for row in pq.read_table(folder / part).to_pylist()]
    assert len(rows) == manifest["num_records"]
    found = {row["key"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_captions_become_shards_with_all_that_made_them(table: Path) -> None:
    synthesize(table, "shards")

    found = records(table.parent / "shards")
    ids = TinyImageGenerator().generate(["image 5"], [record_seed(0, "k5")]).ids
    assert len(found) == 23
    assert found["k5"] == {
        "key": "k5",
        "source": "synthetic",
        "captions": ["image 5"],
        "tokens": ids.flatten().tolist(),
        "class_name": "class 2",
        "seed": record_seed(0, "k5"),
        "scores": None,
        "input": fingerprint_texts(["image 5", found["k5"]["class_name"] or ""]),
    }
    manifest = json.loads((table.parent / "shards" / "manifest.json").read_text())
    assert manifest["provenance"]["settings"] == {
        "model": {"generator_class": "TinyImageGenerator", "codebook": "tiny-16:00000000", "sampler": {"salt": 0}},
        "data": {"seed": 0, "by_image": False, "num_conditions": 1, "is_evaluation": False},
        "trainer": {"precision": "32-true"},
    }


def test_synthetic_pairs_are_trained_on(table: Path) -> None:
    synthesize(table, "shards")
    data = SyntheticDataModule(str(table.parent / "shards"), batch_size=23, num_workers=0)
    data.setup("fit")
    (batch,) = data.train_dataloader()

    found = records(table.parent / "shards")
    assert isinstance(batch.image, VQTokens)
    assert set(batch.keys) == set(found)
    assert batch.captions == tuple(found[key]["captions"][0] for key in batch.keys)
    assert torch.equal(batch.image.ids.flatten(1), torch.tensor([found[key]["tokens"] for key in batch.keys]))


def test_images_for_captions_of_an_evaluation_split_are_not_trained_on(table: Path) -> None:
    folder = str(table.parent / "shards")
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[ShardWriterCallback(folder)]
    )
    captions = PhotoCaptions(ScenesSource("val", num_images=2))
    trainer.predict(SynthesisModule(TinyImageGenerator()), CaptionDataModule(captions))

    with pytest.raises(ValueError, match="evaluation split"):
        SyntheticDataModule(folder).setup("fit")


def test_a_killed_run_resumes_without_making_anything_twice(table: Path) -> None:
    synthesize(table, "undisturbed")
    with pytest.raises(KeyError, match="killed"):
        synthesize(table, "killed", fail_in=3)
    parts = sorted((table.parent / "killed").iterdir())
    assert [path.name for path in parts] == [f"part-00000-0000{number}.parquet" for number in range(3)]
    before = [part.read_bytes() for part in parts]

    module = synthesize(table, "killed", batch_size=5)
    assert module.keys == [f"k{number}" for number in range(9, 23)]
    assert [part.read_bytes() for part in parts] == before
    assert records(table.parent / "killed") == records(table.parent / "undisturbed")


def test_a_run_that_lacks_the_manifest_only_is_finished(table: Path) -> None:
    synthesize(table, "shards")
    before = records(table.parent / "shards")
    (table.parent / "shards" / "manifest.json").unlink()

    assert synthesize(table, "shards").keys == []
    assert records(table.parent / "shards") == before


def test_more_images_per_caption_are_added(table: Path) -> None:
    synthesize(table, "shards")
    before = records(table.parent / "shards")
    module = synthesize(table, "shards", num_per_caption=2)

    found = records(table.parent / "shards")
    assert sorted(module.keys) == sorted(f"{key}~1" for key in before)
    assert len(found) == 46
    assert before.items() <= found.items()
    assert found["k5~1"]["captions"] == found["k5"]["captions"]
    assert found["k5~1"]["tokens"] != found["k5"]["tokens"]


def test_a_killed_run_of_scenes_resumes_exactly(table: Path) -> None:
    settings = {"by_image": True, "num_per_caption": 5, "num_conditions": 2}
    synthesize(table, "undisturbed", **settings)
    with pytest.raises(KeyError, match="killed"):
        synthesize(table, "killed", fail_in=3, **settings)
    synthesize(table, "killed", batch_size=2, **settings)

    found = records(table.parent / "killed")
    assert found == records(table.parent / "undisturbed")
    assert set(found) == {f"{image}{copy}" for image in "012" for copy in ("", "~1", "~2", "~3", "~4")}
    captions = [f"image {number}" for number in range(1, 23, 3)]
    assert all(found[f"1{copy}"]["captions"] == captions for copy in ("", "~1"))
    pair = TinyImageGenerator().generate([("image 7", "image 10")], [record_seed(0, "1~1")]).ids
    assert found["1~1"]["tokens"] == pair.flatten().tolist()
    with pytest.raises(ValueError, match=r"data\.num_conditions is 2 there and 1 in this run"):
        synthesize(table, "killed", by_image=True, num_per_caption=5)


@pytest.mark.parametrize("fail_in", [3, None])
def test_a_folder_made_with_other_settings_is_refused(table: Path, fail_in: int | None) -> None:
    if fail_in is None:
        synthesize(table, "shards")
    else:
        with pytest.raises(KeyError):
            synthesize(table, "shards", fail_in=fail_in)

    with pytest.raises(ValueError, match=r"model\.sampler\.salt\b.*\b0\b.*\b1\b"):
        synthesize(table, "shards", salt=1)
    with pytest.raises(ValueError, match=r"data\.seed\b.*\b0\b.*\b7\b"):
        synthesize(table, "shards", seed=7)


def run_file(table: Path, folder: str, **generator: Any) -> list[str]:
    """Return the command line of a prediction whose run file has all settings."""
    content = {
        "trainer": {
            "accelerator": "cpu",
            "logger": False,
            "callbacks": [
                {
                    "class_path": "synth2_lightning.callbacks.shard_writer.ShardWriterCallback",
                    "init_args": {"folder": folder, "records_per_part": 2},
                },
                {"class_path": "synth2_lightning.callbacks.progress.PredictionProgressBar"},
            ],
        },
        "model": {
            "class_path": "synth2_lightning.modules.synthesis.SynthesisModule",
            "init_args": {"generator": {"class_path": "slow.SlowGenerator", "init_args": generator}},
        },
        "data": {
            "class_path": "synth2_lightning.datamodules.captions.CaptionDataModule",
            "init_args": {
                "captions": {
                    "class_path": "synth2_lightning.sources.caption_table.CaptionTable",
                    "init_args": {"table": str(table), "key_column": "id", "class_column": "of"},
                },
                "batch_size": 1,
            },
        },
    }
    (table.parent / "slow.py").write_text(
        "import time\n"
        "from synth2_lightning.testing import TinyImageGenerator\n"
        "class SlowGenerator(TinyImageGenerator):\n"
        "    def __init__(self, seconds: float = 0.0, salt: int = 0) -> None:\n"
        "        super().__init__(salt)\n"
        "        self.seconds = seconds\n"
        "    def generate(self, captions, seeds):\n"
        "        time.sleep(self.seconds)\n"
        "        return super().generate(captions, seeds)\n"
    )
    (table.parent / f"{folder}.yaml").write_text(json.dumps(content))  # JSON is YAML
    return [sys.executable, "-m", "synth2_lightning", "predict", "--config", f"{folder}.yaml", "--trust=slow"]


def test_a_full_disk_is_reported_and_the_same_command_resumes(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fill_disk: Callable[[str], None]
) -> None:
    monkeypatch.chdir(table.parent)
    monkeypatch.syspath_prepend(str(table.parent))
    folder, words = table.parent / "shards", run_file(table, "shards")[3:]
    fill_disk("part-00000-00003.parquet")
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert re.search(r"error: shards/part-00000-00003\.parquet.*No space left on device", error)
    assert re.search(r"\b6 records\b.*\b3\b.*\bshards\b.*\b2\b.*lost", error)
    assert "Traceback" not in error
    assert sorted(path.name for path in folder.iterdir()) == [f"part-00000-0000{number}.parquet" for number in range(3)]

    main(words)
    main(run_file(table, "undisturbed")[3:])
    assert records(folder) == records(table.parent / "undisturbed")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_processes_killed_and_resumed_end_like_one(table: Path) -> None:
    folder, two = table.parent, ["--trainer.devices=2", "--trainer.strategy=ddp"]
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))  # for slow.py
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "SYNTH2_TRACEBACK": "1"}

    def start(words: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            words, cwd=folder, env=environment, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    killed = start([*run_file(table, "killed", seconds=0.3), *two])
    while killed.poll() is None and len(list((folder / "killed").glob("part-*.parquet"))) < 3:
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (folder / "killed" / "manifest.json").exists()
    before = {part: part.read_bytes() for part in (folder / "killed").glob("part-*.parquet")}
    assert {part.name[:10] for part in before} == {"part-00000", "part-00001"}

    # Two ranks write the other records; then one process has nothing left to do.
    for words in ([*run_file(table, "killed"), *two], run_file(table, "killed"), run_file(table, "undisturbed")):
        process = start(words)
        output, _ = process.communicate(timeout=500)
        assert process.returncode == 0, output[-4000:]
    assert all(part.read_bytes() == content for part, content in before.items())
    assert records(folder / "killed") == records(folder / "undisturbed")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_rank_without_a_caption_waits_for_the_others(table: Path) -> None:
    table.write_text(json.dumps(ROWS[0]))
    words = [*run_file(table, "shards"), "--trainer.devices=2", "--trainer.strategy=ddp"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(table.parent), *sys.path])}  # for slow.py
    finished = subprocess.run(
        words, cwd=table.parent, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-4000:]
    assert list(records(table.parent / "shards")) == ["k0"]
