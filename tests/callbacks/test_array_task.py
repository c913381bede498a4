from pathlib import Path
from typing import Any

import datasets
import pytest
from lightning.pytorch import LightningDataModule, Trainer

from synth2_lightning.callbacks.array_task import ArrayTaskCallback
from synth2_lightning.callbacks.shard_writer import ShardWriterCallback
from synth2_lightning.datamodules.captions import CaptionDataModule
from synth2_lightning.modules.synthesis import SynthesisModule
from synth2_lightning.shards.parts import list_parts, read_keys
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.sources.caption_table import CaptionTable
from synth2_lightning.testing import TinyImageGenerator

pytestmark = pytest.mark.filterwarnings("ignore:Total length of `PredictBatches` across ranks is zero")


@pytest.fixture
def captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CaptionDataModule:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    table = tmp_path / "captions.csv"
    table.write_text("caption\n" + "\n".join(f"a fox number {number}" for number in range(40)))
    return CaptionDataModule(CaptionTable(str(table)), batch_size=4)


def predict(folder: Path, data: LightningDataModule, task: int | None = None, **settings: Any) -> None:
    callbacks = [ShardWriterCallback(str(folder), records_per_part=5)]
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, *([] if task is None else [ArrayTaskCallback(task, 3)])],
        **settings,
    )
    trainer.predict(SynthesisModule(TinyImageGenerator()), data)


def list_keys(folder: Path) -> list[str]:
    return sorted(key for part in list_parts(folder) for _, key in read_keys(part))


def test_tasks_together_write_the_records_of_one_run(tmp_path: Path, captions: CaptionDataModule) -> None:
    predict(tmp_path / "one", captions)
    predict(tmp_path / "many", captions, task=2)
    third = list_keys(tmp_path / "many")
    assert 5 < len(third) < 25
    predict(tmp_path / "many", captions, task=0)
    predict(tmp_path / "many", captions, task=2)  # again: no record of this task is left
    assert set(third) < set(list_keys(tmp_path / "many"))
    predict(tmp_path / "many", captions, task=1)
    assert not (tmp_path / "many" / "manifest.json").exists()
    assert list_keys(tmp_path / "many") == list_keys(tmp_path / "one")
    predict(tmp_path / "many", captions)
    one, many = ShardReader(tmp_path / "one"), ShardReader(tmp_path / "many")
    one.load()
    many.load()
    places = {key: row for row, (_, key) in enumerate(many.read_keys())}
    rows = [places[key] for _, key in one.read_keys()]
    assert many.read(rows).tokens.ids.equal(one.read(range(40)).tokens.ids)


def test_the_last_run_writes_the_records_of_a_failed_task(tmp_path: Path, captions: CaptionDataModule) -> None:
    predict(tmp_path / "many", captions, task=0)
    predict(tmp_path / "many", captions, task=1, limit_predict_batches=1)  # ends after one batch
    predict(tmp_path / "many", captions)
    assert list_keys(tmp_path / "many") == [f"captions-{number:06d}" for number in range(1, 41)]
    assert (tmp_path / "many" / "manifest.json").exists()


def test_a_task_logs_the_next_command(
    tmp_path: Path, captions: CaptionDataModule, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        predict(tmp_path / "many", captions, task=1)
    assert "Task 1 of 3" in caplog.text
    assert "without ArrayTaskCallback" in caplog.text


def test_a_datamodule_without_skip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"LightningDataModule.*ArrayTaskCallback"):
        predict(tmp_path / "many", LightningDataModule(), task=1)


@pytest.mark.parametrize("task", [-1, 16])
def test_a_task_out_of_range_is_refused(task: int) -> None:
    with pytest.raises(ValueError, match=rf"task={task}\b.*num_tasks=16"):
        ArrayTaskCallback(task, 16)


def test_a_remote_folder_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'s3://bucket/set'.*local"):
        ShardWriterCallback("s3://bucket/set")
