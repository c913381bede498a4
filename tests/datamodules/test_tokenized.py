from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from synth2_lightning.datamodules.fraction import ConstantFraction
from synth2_lightning.datamodules.mixed import MixedDataModule
from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.datamodules.tokenized import TokenizedDataModule
from synth2_lightning.sources.folder import FolderSource
from synth2_lightning.testing import TinyImageTokenizer
from synth2_lightning.types import MixedImages, Pixels, VQTokens

MakeSource = Callable[..., FolderSource]
MakeShards = Callable[[int], str]


def test_it_trains_on_tokens_and_validates_on_photos(make_source: MakeSource, make_shards: MakeShards) -> None:
    data = TokenizedDataModule(
        make_shards(9),
        val=make_source(3),
        batch_size=4,
        image_encoder=TinyImageTokenizer(),
        num_workers=0,
        limit=6,
        val_batch_size=3,
    )
    data.setup("fit")
    batches = [*data.train_dataloader(), *data.train_dataloader(), *data.train_dataloader()]

    assert len(batches) == 3
    assert all(isinstance(batch.image, VQTokens) for batch in batches)
    assert {key for batch in batches for key in batch.keys} == {f"s{row}" for row in range(6)}
    judged: Any = next(iter(data.val_dataloader()))
    assert isinstance(judged.image, Pixels)
    assert len(judged) == 3


def test_is_mixed_with_synthetic_pairs_in_token_space(make_source: MakeSource, make_shards: MakeShards) -> None:
    shards = make_shards(8)
    real = TokenizedDataModule(shards, val=make_source(2), num_workers=0, limit=2)
    data = MixedDataModule(real, SyntheticDataModule(shards), 4, ConstantFraction(0.5), num_workers=0)
    trainer: Any = SimpleNamespace(global_rank=0, world_size=1, state=SimpleNamespace(fn="fit"))
    data.trainer = trainer
    data.setup("fit")
    batches = list(data.train_dataloader())

    assert data.count_train_pairs() == (2, 8)
    for batch in batches:
        assert isinstance(batch.image, MixedImages)
        assert all(isinstance(part, VQTokens) for part in batch.image.parts)
        assert {int(key.removeprefix("s")) for key in batch.keys[:2]} == {0, 1}
