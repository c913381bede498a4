from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from synth2_lightning.datamodules.score_weights import ExponentialWeights
from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.types import VQTokens

MakeShards = Callable[..., str]


def test_batches_are_tokens_with_captions(make_shards: MakeShards) -> None:
    data = SyntheticDataModule(make_shards(9), batch_size=4, num_workers=0)
    data.setup("fit")
    batches = [*data.train_dataloader(), *data.train_dataloader()]

    assert len(batches) == 4
    for batch in batches:
        assert isinstance(batch.image, VQTokens)
        assert batch.image.codebook == "tiny-16:00000000"
        rows = [int(key.removeprefix("s")) for key in batch.keys]
        assert torch.equal(batch.image.ids, torch.tensor(rows)[:, None, None].expand(4, 4, 1))
        assert batch.captions == tuple(f"synthetic {row}" for row in rows)
        assert batch.sources == ("synthetic",) * 4
    assert len({key for batch in batches for key in batch.keys}) == 9


def test_limit_and_workers(make_shards: MakeShards) -> None:
    data = SyntheticDataModule(make_shards(9), batch_size=3, num_workers=2, limit=3)
    data.setup("fit")
    (batch,) = data.train_dataloader()

    assert sorted(batch.keys) == ["s0", "s1", "s2"]


def test_shards_are_opened_for_training_only() -> None:
    data = SyntheticDataModule("gone", num_workers=0)
    data.setup("validate")
    with pytest.raises(FileNotFoundError, match=r"folder.*shards.*'gone'"):
        data.setup("fit")


def trained_keys(shards: str, **settings: float) -> list[str]:
    data = SyntheticDataModule(shards, num_workers=0, **settings)  # type: ignore[arg-type]
    data.setup("fit")
    return sorted(data.train_pairs.read(range(len(data.train_pairs))).keys)


def test_the_best_fraction_is_kept_and_counted(make_shards: MakeShards, caplog: pytest.LogCaptureFixture) -> None:
    shards = make_shards(5, scores=((0.0,), (3.0,), (-1.0,), (2.0,), (2.5,)))

    with caplog.at_level("INFO"):
        assert trained_keys(shards, keep_fraction=0.6) == ["s1", "s3", "s4"]
    assert "3 of the 5 pairs of" in caplog.text
    assert "are used, those with a score of at least 2 (keep_fraction=0.6)" in caplog.text
    assert trained_keys(shards, keep_fraction=0.01) == ["s1"]
    assert len(trained_keys(shards, keep_fraction=1.0)) == 5
    assert trained_keys(shards, keep_fraction=0.5, limit=4) == ["s1", "s3"]


def test_pairs_of_the_same_score_are_kept_or_left_together(make_shards: MakeShards) -> None:
    shards = make_shards(6, scores=((1.0,), (1.0,), (0.0,), (2.0,), (0.0,), (1.0,)))
    assert trained_keys(shards, keep_fraction=0.5) == ["s0", "s1", "s3", "s5"]


def test_a_fraction_of_shards_without_scores_is_refused(make_shards: MakeShards) -> None:
    shards = make_shards(3)
    assert len(trained_keys(shards)) == 3
    with pytest.raises(ValueError, match=r"score.*3.*captions"):
        trained_keys(shards, keep_fraction=0.5)


def test_the_best_images_of_each_caption_are_kept(make_shards: MakeShards, caplog: pytest.LogCaptureFixture) -> None:
    keys = ("a", "b", "a~1", "b~1", "a~2")
    shards = make_shards(5, scores=((0.0,), (3.0,), (-1.0,), (2.0,), (2.5,)), keys=keys)
    with caplog.at_level("INFO"):
        assert trained_keys(shards, best_draws=1) == ["a~2", "b"]
    assert "2 of the 5 pairs of" in caplog.text
    assert trained_keys(shards, best_draws=2) == ["a", "a~2", "b", "b~1"]
    assert trained_keys(shards, best_draws=1, keep_fraction=0.5) == ["b"]
    assert trained_keys(shards, best_draws=9) == sorted(keys)


def test_each_caption_of_a_scene_keeps_its_own_best_image(make_shards: MakeShards) -> None:
    captions = (("x", "y"), ("x", "y"))
    shards = make_shards(2, scores=((0.0, 1.0), (1.0, 0.0)), keys=("a", "a~1"), captions=captions)
    data = SyntheticDataModule(shards, num_workers=0, best_draws=1)
    data.setup("fit")
    batch = data.train_pairs.read(range(2))
    assert list(zip(batch.keys, batch.captions, strict=True)) == [("a", "y"), ("a~1", "x")]


def test_captions_of_a_scene_are_all_used_in_a_pass(make_shards: MakeShards) -> None:
    data = SyntheticDataModule(make_shards(2, captions=(("x", "y", "z"), ("u",))), batch_size=2, num_workers=0)
    data.setup("fit")
    found = [pair for batch in data.train_dataloader() for pair in zip(batch.keys, batch.captions, strict=True)]
    assert sorted(found) == [("s0", "x"), ("s0", "y"), ("s0", "z"), ("s1", "u")]


def test_kept_pairs_have_weights_by_their_scores(make_shards: MakeShards, caplog: pytest.LogCaptureFixture) -> None:
    shards = make_shards(4, scores=((-9.0,), (0.0,), (1.0,), (2.0,)))
    settings = {"num_workers": 0, "keep_fraction": 0.75}
    data = SyntheticDataModule(shards, weights=ExponentialWeights(), **settings)  # type: ignore[arg-type]
    data.setup("fit")
    with caplog.at_level("INFO"):
        batch = data.train_pairs.read([2, 0])
    assert batch.keys == ("s3", "s1")
    expected = ExponentialWeights()(np.array([0.0, 1.0, 2.0], np.float32))
    assert batch.weights is not None
    assert batch.weights.tolist() == expected[[2, 0]].tolist()
    assert "The losses of 3 pairs of" in caplog.text
    assert "which count as 2 equally weighted pairs" in caplog.text

    plain = SyntheticDataModule(shards, **settings)  # type: ignore[arg-type]
    plain.setup("fit")
    assert plain.train_pairs.read([0]).weights is None
    assert data.fingerprint() != plain.fingerprint()


@pytest.mark.parametrize("settings", [{"best_draws": 1}, {"weights": ExponentialWeights()}])
def test_best_images_and_weights_need_scores(make_shards: MakeShards, settings: dict[str, Any]) -> None:
    data = SyntheticDataModule(make_shards(3), num_workers=0, **settings)
    data.setup("fit")
    with pytest.raises(ValueError, match=r"score.*3 captions.*best_draws=null and weights=null"):
        _ = data.train_pairs


def test_a_number_of_best_images_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="best_draws=0; expected 1 or more"):
        SyntheticDataModule("shards", best_draws=0)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=f"keep_fraction={fraction}; expected a fraction above 0 and at most 1"):
        SyntheticDataModule("shards", keep_fraction=fraction)


def test_batches_and_training_captions_have_all_captions_of_a_row(make_shards: MakeShards) -> None:
    shards = make_shards(5, scores=((0.0,), (3.0,), (-1.0,), (2.0,), (2.5,)))
    data = SyntheticDataModule(shards, batch_size=2, num_workers=0, keep_fraction=0.6)
    data.setup("fit")
    assert data.training_captions() == [("synthetic 1",), ("synthetic 3",), ("synthetic 4",)]
    batch = data.train_pairs.read([2, 0])
    assert batch.references == (("synthetic 4",), ("synthetic 1",))


def test_scores_of_shards_without_captions_are_refused(make_shards: MakeShards) -> None:
    data = SyntheticDataModule(str(make_shards(2, captions=((), ()), scores=((), ()))), keep_fraction=0.5)
    data.setup("fit")
    with pytest.raises(ValueError, match="have no captions"):
        data.make_train_pairs()
