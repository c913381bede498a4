from collections.abc import Callable

import pytest
import torch

from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.types import VQTokens


def test_batches_are_tokens_with_captions(make_shards: Callable[[int], str]) -> None:
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


def test_limit_and_workers(make_shards: Callable[[int], str]) -> None:
    data = SyntheticDataModule(make_shards(9), batch_size=3, num_workers=2, limit=3)
    data.setup("fit")
    (batch,) = data.train_dataloader()

    assert sorted(batch.keys) == ["s0", "s1", "s2"]


def test_shards_are_opened_for_training_only() -> None:
    data = SyntheticDataModule("gone", num_workers=0)
    data.setup("validate")
    with pytest.raises(FileNotFoundError, match="The folder of shards is not at 'gone'"):
        data.setup("fit")
