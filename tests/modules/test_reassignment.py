"""Reassignment with a pool in which the image of row ``i`` has the ids ``i`` and the key ``p{i}``."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from lightning.pytorch import Trainer

from synth2_lightning.callbacks.shard_writer import ShardWriterCallback
from synth2_lightning.datamodules.shards import ShardDataModule
from synth2_lightning.io.fingerprints import hash_record
from synth2_lightning.modules.reassignment import ReassignmentModule
from synth2_lightning.nn.pooling import embed_sentences
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.testing import TinyImageTokenizer, TinyPairScorer, TinyTextEncoder, tiny_batch
from synth2_lightning.types import SampleInfo, TokenizedImages, VQTokens

POOL = (("a dark field",), ("a bright field",), ("a dark field",), (), ("two cats",))
CAPTIONS = (("a bright field",), ("two black cats", "cats"), ("a dark field",))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path / "pool", POOL)
    return tmp_path


def make_images(captions: tuple[tuple[str, ...], ...], prefix: str) -> TokenizedImages:
    samples = tuple(SampleInfo(f"{prefix}{row}", "synthetic", "x", 100 + row) for row in range(len(captions)))
    ids = torch.arange(len(captions))[:, None, None].expand(-1, 4, 1)
    return TokenizedImages(samples, captions, VQTokens(ids, TinyImageTokenizer.codebook), 16)


def write(folder: Path, captions: tuple[tuple[str, ...], ...], prefix: str = "p", is_evaluation: bool = False) -> None:
    writer = ShardWriter(folder)
    writer.append(make_images(captions, prefix))
    writer.close()
    finish(folder, {}, is_evaluation)


def reassign(folder: Path, images: TokenizedImages, **settings: Any) -> TokenizedImages:
    module = ReassignmentModule(str(folder / "pool"), TinyTextEncoder(), **settings)
    module.configure_model()
    return module.predict_step(images, 0)


def rows_of(images: TokenizedImages) -> list[int]:
    return images.tokens.ids[:, 0, 0].tolist()


def test_captions_take_the_image_with_the_nearest_caption(folder: Path) -> None:
    images = make_images(CAPTIONS, "k")
    found = reassign(folder, images)
    assert rows_of(found)[:2] == [1, 4]
    assert rows_of(found)[2] in (0, 2)
    assert found.captions == CAPTIONS
    assert found.keys == images.keys
    assert [sample.class_name for sample in found.samples] == ["x"] * 3
    assert found.seeds == tuple(100 + row for row in rows_of(found))
    texts = embed_sentences(TinyTextEncoder(), ["two black cats", "cats", "two cats"])
    assert found.scores[1] == pytest.approx((texts[:2] @ texts[2]).tolist())
    assert found.scores[0] == pytest.approx((1.0,))
    several = make_images((("a bright field", "two cats", "two cats"),), "k")
    assert rows_of(reassign(folder, several)) == [4]  # the nearest to their mean, not to the first one


def test_images_with_equal_captions_are_shared_by_a_hash_of_the_record(folder: Path) -> None:
    images = make_images((("a dark field",),) * 20, "k")
    found = rows_of(reassign(folder, images))
    assert set(found) == {0, 2}
    assert found == [[0, 2][hash_record(("synthetic", key)) % 2] for key in images.keys]


def test_a_scorer_selects_among_the_nearest_images(folder: Path) -> None:
    images = make_images((("a bright field",), ("a dark field",), ("a bright field", "bright", "a dark field")), "k")
    found = reassign(folder, images, scorer=TinyPairScorer(), num_candidates=4)
    assert rows_of(found) == [4, 0, 4]  # the brightest, the darkest, and the one with the highest mean
    assert found.scores == ((4.0,), (15.0,), (4.0, 4.0, 11.0))
    few = reassign(folder, images, scorer=TinyPairScorer(), num_candidates=3)
    assert rows_of(few)[:2] == [2, 0]  # the bright one and the two dark ones


def test_scores_that_are_not_finite_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TinyPairScorer, "score", lambda self, tokens, captions: torch.full((len(captions),), torch.nan))
    images = make_images((("a bright field",),), "k")
    with pytest.raises(ValueError, match=r"TinyPairScorer returned for the caption 'a bright field' the score nan"):
        reassign(folder, images, scorer=TinyPairScorer(), num_candidates=2)


def test_provenance_names_pool_encoder_and_scorer(folder: Path) -> None:
    def describe(**settings: Any) -> dict[str, Any]:
        module = ReassignmentModule(str(folder / "pool"), TinyTextEncoder(), **settings)
        module.configure_model()
        return module.provenance()

    plain = describe()
    assert set(plain) == {"pool", "pool_fingerprint", "encoder", "num_candidates", "scorer"}
    assert plain["encoder"].startswith("tiny:")
    assert plain["scorer"] is None
    assert describe(scorer=TinyPairScorer(), num_candidates=2)["scorer"]["scorer_class"] == "TinyPairScorer"
    write(folder / "other", POOL[:3])
    other = ReassignmentModule(str(folder / "other"), TinyTextEncoder())
    other.configure_model()
    assert other.provenance()["pool_fingerprint"] != plain["pool_fingerprint"]


def predict(folder: Path, out: str, batch_size: int, limit: int | None = None) -> None:
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        limit_predict_batches=limit, callbacks=[ShardWriterCallback(str(folder / out), records_per_part=2)],
    )  # fmt: skip
    module = ReassignmentModule(str(folder / "pool"), TinyTextEncoder())
    trainer.predict(module, ShardDataModule(str(folder / "synthetic"), batch_size))


def test_a_stopped_run_resumes_to_the_same_shards(folder: Path) -> None:
    write(folder / "synthetic", CAPTIONS * 3, "k")
    predict(folder, "whole", batch_size=4)
    predict(folder, "stopped", batch_size=2, limit=2)
    (folder / "stopped" / "manifest.json").unlink()
    predict(folder, "stopped", batch_size=3)
    found = []
    for out in ("whole", "stopped"):
        reader = ShardReader(folder / out)
        reader.load()
        images = reader.read_all_columns(range(len(reader)))
        columns = zip(images.samples, images.captions, rows_of(images), images.scores, strict=True)
        found.append({sample.key: (sample, *rest) for sample, *rest in columns})
        assert reader.manifest.provenance["settings"]["model"]["num_candidates"] == 1
    assert found[0] == found[1]
    assert len(found[0]) == 9


def test_wrong_arguments_and_batches_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"num_candidates=2 and no scorer"):
        ReassignmentModule("pool", TinyTextEncoder(), num_candidates=2)
    with pytest.raises(ValueError, match=r"num_candidates=0 and a scorer"):
        ReassignmentModule("pool", TinyTextEncoder(), TinyPairScorer(), num_candidates=0)
    with pytest.raises(TypeError, match=r"ReassignmentModule.*ImageTextBatch.*TokenizedImages.*Shard"):
        ReassignmentModule("pool", TinyTextEncoder()).predict_step(tiny_batch(), 0)
    with pytest.raises(ValueError, match=r"'k1' has no caption; expected at least one"):
        reassign(folder, make_images((("a",), ()), "k"))


def test_a_pool_of_an_evaluation_split_is_refused(folder: Path) -> None:
    write(folder / "evaluation", POOL, is_evaluation=True)
    with pytest.raises(ValueError, match=r"evaluation comes from an evaluation split"):
        ReassignmentModule(str(folder / "evaluation"), TinyTextEncoder()).configure_model()
