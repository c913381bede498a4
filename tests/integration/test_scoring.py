"""Scoring of shards: interrupted runs resume, and the batch size does not change the scores."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch import Trainer

from synth2_lightning.callbacks.shard_writer import ShardWriterCallback
from synth2_lightning.datamodules.shards import ShardDataModule
from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.modules.scoring import ScoringModule
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.testing import TinyImageTokenizer, TinyPairScorer
from synth2_lightning.types import SampleInfo, TokenizedImages, VQTokens

pytestmark = pytest.mark.filterwarnings("ignore:Total length of `PredictBatches` across ranks is zero")
NUM_ROWS = 11


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return shards in which row ``i`` has brightness ``i``, and a caption for bright and one for dark."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    ids = torch.arange(NUM_ROWS)[:, None, None].expand(NUM_ROWS, 4, 1)
    images = TokenizedImages(
        samples=tuple(SampleInfo(f"k{row}", "synthetic", "field", row) for row in range(NUM_ROWS)),
        captions=(("a bright field", "a dark field"),) * NUM_ROWS,
        tokens=VQTokens(ids, TinyImageTokenizer.codebook),
        codebook_size=16,
    )
    writer = ShardWriter(tmp_path / "shards")
    writer.start({"model": {"generator": "tiny"}})
    writer.append(images)
    writer.close()
    finish(tmp_path / "shards", {}, is_evaluation=False)
    return tmp_path / "shards"


class Scoring(ScoringModule):
    """Records its keys, and fails in the batch ``fail_in``."""

    def __init__(self, fail_in: int | None = None) -> None:
        super().__init__(TinyPairScorer())
        self.fail_in = fail_in
        self.keys: list[str] = []

    def predict_step(self, batch: TokenizedImages, batch_idx: int) -> TokenizedImages:  # type: ignore[override]
        if batch_idx == self.fail_in:
            raise KeyError("killed")
        self.keys += batch.keys
        return super().predict_step(batch, batch_idx)


def score(shards: Path, folder: str, fail_in: int | None = None, batch_size: int = 2, **settings: Any) -> Scoring:
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ShardWriterCallback(str(shards.parent / folder), records_per_part=2)],
        **settings,
    )
    module = Scoring(fail_in)
    trainer.predict(module, ShardDataModule(str(shards), batch_size))
    return module


def records(folder: Path) -> dict[str, dict[str, Any]]:
    rows = [row for part in sorted(folder.glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    found = {row["key"]: {name: value for name, value in row.items() if name != "input"} for row in rows}
    assert len(found) == len(rows)
    return found


def test_scored_shards_hold_all_that_the_others_did_and_scores(shards: Path) -> None:
    score(shards, "scored")

    before = records(shards)
    assert records(shards.parent / "scored") == {
        key: row | {"scores": [float(row["tokens"][0]), 15.0 - row["tokens"][0]]} for key, row in before.items()
    }
    manifest = json.loads((shards.parent / "scored" / "manifest.json").read_text())
    assert manifest["provenance"]["made_by"] == "Scoring"
    assert manifest["provenance"]["settings"] == {
        "trainer": {"precision": "32-true"},
        "model": {"scorer_class": "TinyPairScorer", "codebook": TinyImageTokenizer.codebook},
        "data": {"shards": {"model": {"generator": "tiny"}}, "is_evaluation": False},
    }


def test_a_killed_run_resumes_and_batches_change_nothing(shards: Path) -> None:
    score(shards, "undisturbed", batch_size=5)
    with pytest.raises(KeyError, match="killed"):
        score(shards, "killed", fail_in=3)
    assert score(shards, "killed").keys == [f"k{row}" for row in range(6, NUM_ROWS)]

    assert records(shards.parent / "killed") == records(shards.parent / "undisturbed")
    assert score(shards, "killed").keys == []


def test_the_best_pairs_are_trained_on(shards: Path) -> None:
    score(shards, "scored")
    data = SyntheticDataModule(str(shards.parent / "scored"), num_workers=0, keep_fraction=0.5)
    data.setup("fit")

    batch = data.train_pairs.read(range(len(data.train_pairs)))
    kept = {(key, caption) for key, caption in zip(batch.keys, batch.captions, strict=True)}
    bright = {(f"k{row}", "a bright field") for row in range(NUM_ROWS) if row >= 8}
    assert kept == bright | {(f"k{row}", "a dark field") for row in range(NUM_ROWS) if 15 - row >= 8}


def test_scores_do_not_wash_an_evaluation_split(shards: Path) -> None:
    finish(shards, {}, is_evaluation=True)
    score(shards, "scored")
    with pytest.raises(ValueError, match="evaluation split"):
        SyntheticDataModule(str(shards.parent / "scored")).setup("fit")
