from collections.abc import Callable

import pytest
import torch

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
