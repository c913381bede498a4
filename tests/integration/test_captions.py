"""Captions from class names, and tokens from captions: interrupted runs resume; ranks and batches change no caption."""

import json
import os
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
from lightning.pytorch import Trainer

from synth2_lightning.callbacks.caption_writer import CaptionWriterCallback
from synth2_lightning.callbacks.shard_writer import ShardWriterCallback
from synth2_lightning.concepts.prompts import PromptTemplate
from synth2_lightning.concepts.sampling import UniformSampling
from synth2_lightning.concepts.table import TableConcepts
from synth2_lightning.datamodules.captions import CaptionDataModule
from synth2_lightning.datamodules.concepts import ConceptDataModule
from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.filters.refusals import RefusalFilter
from synth2_lightning.modules.caption_writing import CaptionWritingModule
from synth2_lightning.modules.synthesis import SynthesisModule
from synth2_lightning.sources.caption_table import CaptionTable
from synth2_lightning.testing import TinyCaptionGenerator, TinyImageGenerator

NAMES = [f"{size} {color} {shape}" for size in ("small", "large") for color in ("red", "blue") for shape in
         ("circle", "star", "ring", "cross", "heart")]  # fmt: skip


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    return tmp_path / "names.txt"


def test_names_become_pairs_that_are_trained_on(names: Path) -> None:
    folder = names.parent
    plain: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    concepts = ConceptDataModule(TableConcepts(str(names)), PromptTemplate("plain", 1, "{name}"), 20, UniformSampling())
    writer = CaptionWriterCallback(str(folder / "captions"), [RefusalFilter()])
    Trainer(callbacks=[writer], **plain).predict(CaptionWritingModule(TinyCaptionGenerator()), concepts)

    table = CaptionTable(str(folder / "captions" / "captions.parquet"), key_column="key", class_column="class_name")
    shards = ShardWriterCallback(str(folder / "shards"))
    Trainer(callbacks=[shards], **plain).predict(SynthesisModule(TinyImageGenerator()), CaptionDataModule(table))

    data = SyntheticDataModule(str(folder / "shards"), batch_size=20, num_workers=0)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    assert {caption.removeprefix("An image of ").partition(" number")[0] for caption in batch.captions} == set(NAMES)
    (part,) = (folder / "shards").glob("*.parquet")
    assert {row["class_name"] for row in pq.read_table(part).to_pylist()} == set(NAMES)


def run_file(names: Path, folder: str, generator: dict[str, Any], batch_size: int = 1) -> list[str]:
    """Return the command line of a prediction whose run file has all settings."""
    room = "synth2_lightning"
    content = {
        "trainer": {
            "accelerator": "cpu",
            "logger": False,
            "callbacks": [
                {
                    "class_path": f"{room}.callbacks.caption_writer.CaptionWriterCallback",
                    "init_args": {
                        "folder": folder,
                        "records_per_part": 2,
                        "filters": [{"class_path": f"{room}.filters.refusals.RefusalFilter"}],
                    },
                },
                {
                    "class_path": f"{room}.callbacks.progress.PredictionProgressBar",
                    "init_args": {"noun": "captions"},
                },
            ],
        },
        "model": {
            "class_path": f"{room}.modules.caption_writing.CaptionWritingModule",
            "init_args": {"generator": generator},
        },
        "data": {
            "class_path": f"{room}.datamodules.concepts.ConceptDataModule",
            "init_args": {
                "concepts": {"class_path": f"{room}.concepts.table.TableConcepts", "init_args": {"table": str(names)}},
                "prompt": {
                    "class_path": f"{room}.concepts.prompts.PromptTemplate",
                    "init_args": {"name": "plain", "version": 1, "request": "{name}"},
                },
                "sampler": {"class_path": f"{room}.concepts.sampling.UniformSampling"},
                "num_captions": 20,
                "batch_size": batch_size,
            },
        },
    }
    (names.parent / f"{folder}.yaml").write_text(json.dumps(content))  # JSON is YAML
    return [sys.executable, "-m", "synth2_lightning", "predict", "--config", f"{folder}.yaml", "--trust=slow"]


def slow_generator(names: Path, seconds: float) -> dict[str, Any]:
    (names.parent / "slow.py").write_text(
        "import time\n"
        "from synth2_lightning.testing import TinyCaptionGenerator\n"
        "class SlowGenerator(TinyCaptionGenerator):\n"
        "    def __init__(self, seconds: float = 0.0) -> None:\n"
        "        super().__init__()\n"
        "        self.seconds = seconds\n"
        "    def generate(self, prompts, seeds):\n"
        "        time.sleep(self.seconds)\n"
        "        return super().generate(prompts, seeds)\n"
    )
    return {"class_path": "slow.SlowGenerator", "init_args": {"seconds": seconds}}


def start(words: list[str], folder: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))  # for slow.py
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "SYNTH2_TRACEBACK": "1"}
    return subprocess.Popen(
        words, cwd=folder, env=environment, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(words: list[str], folder: Path) -> None:
    process = start(words, folder)
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0, output[-4000:]


TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_killed_and_resumed_end_like_one(names: Path) -> None:
    folder = names.parent
    killed = start([*run_file(names, "killed", slow_generator(names, 0.3)), *TWO], folder)
    while killed.poll() is None and len(list((folder / "killed").glob("part-*.parquet"))) < 3:
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=100)
    assert not (folder / "killed" / "captions.parquet").exists()
    before = {part: part.read_bytes() for part in (folder / "killed").glob("part-*.parquet")}
    assert {part.name[:10] for part in before} == {"part-00000", "part-00001"}

    quick = slow_generator(names, 0.0)
    run([*run_file(names, "killed", {**quick, "init_args": {"seconds": 0.0}}), *TWO], folder)
    run(run_file(names, "undisturbed", quick), folder)
    assert all(part.read_bytes() == content for part, content in before.items())
    killed_set, whole_set = (pq.read_table(folder / name / "captions.parquet") for name in ("killed", "undisturbed"))
    assert killed_set.num_rows == 20
    assert killed_set.equals(whole_set)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_language_model_writes_the_same_on_one_rank_and_on_two(names: Path, save_model: Callable[..., str]) -> None:
    generator = {
        "class_path": "synth2_lightning.generators.language_model.LanguageModelCaptionGenerator",
        "init_args": {"model": save_model("llama"), "num_rows": 4, "sampling": {"max_new_tokens": 12}},
    }
    for name, batch_size, more in (("one", 20, []), ("small", 3, []), ("two", 7, TWO)):
        run([*run_file(names, name, generator, batch_size), *more], names.parent)
    one, small, two = (pq.read_table(names.parent / name / "captions.parquet") for name in ("one", "small", "two"))
    assert len(set(one["caption"].to_pylist())) > 10
    assert small.equals(one)
    assert two.equals(one)
