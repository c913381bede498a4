from collections.abc import Callable
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from synth2_lightning.datamodules.fraction import ConstantFraction, FractionSchedule, LinearFraction
from synth2_lightning.datamodules.mixed import MixedDataModule
from synth2_lightning.datamodules.real import RealDataModule
from synth2_lightning.datamodules.score_weights import ExponentialWeights
from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.interfaces.data import HasInputs
from synth2_lightning.sources.folder import FolderSource
from synth2_lightning.types import MixedImages, Pixels, VQTokens

CPU = SimpleNamespace(root_device=torch.device("cpu"))
MakeSource = Callable[..., FolderSource]
MakeShards = Callable[[int], str]
MakeScored = Callable[..., str]


def mix(
    source: FolderSource | None, shards: str, fraction: FractionSchedule, rank: int = 0, world_size: int = 1
) -> MixedDataModule:
    real = RealDataModule(source, val=source, batch_size=99, image_size=8, num_workers=0, val_batch_size=3)
    data = MixedDataModule(real, SyntheticDataModule(shards, batch_size=99), 4, fraction, num_workers=0)
    state = SimpleNamespace(fn="fit")
    trainer: Any = SimpleNamespace(global_rank=rank, world_size=world_size, state=state, strategy=CPU)
    data.trainer = trainer
    data.setup("fit")
    return data


def test_every_step_has_the_exact_fraction_photos_first(make_source: MakeSource, make_shards: MakeShards) -> None:
    data = mix(make_source(5), make_shards(7), ConstantFraction(0.25))
    batches = list(data.train_dataloader())

    assert len(batches) == (10 + 7) // 4
    for batch in batches:
        assert batch.sources == ("real", "real", "real", "synthetic")
        assert isinstance(batch.image, MixedImages)
        pixels, tokens = batch.image.parts
        assert isinstance(pixels, Pixels)
        assert isinstance(tokens, VQTokens)
        assert pixels.values[:, 0, 0, 0].tolist() == [int(key) for key in batch.keys[:3]]
        assert tokens.ids[:, 0, 0].tolist() == [int(key.removeprefix("s")) for key in batch.keys[3:]]
        assert len(batch.captions) == 4


def test_ranks_get_different_pairs_in_equal_counts(make_source: MakeSource, make_shards: MakeShards) -> None:
    source, shards = make_source(4), make_shards(8)
    ranks = [list(mix(source, shards, ConstantFraction(0.5), rank, 2).train_dataloader()) for rank in range(2)]

    assert [len(batches) for batches in ranks] == [2, 2]
    for step in range(2):
        assert ranks[0][step].sources == ranks[1][step].sources
    captions = [caption for batches in ranks for batch in batches for caption in batch.captions]
    assert len(set(captions)) == 16


def test_the_fraction_follows_its_schedule_over_epochs(make_source: MakeSource, make_shards: MakeShards) -> None:
    data = mix(make_source(4), make_shards(4), LinearFraction(0.0, 1.0, num_steps=3))  # 3 steps an epoch
    batches = [*data.train_dataloader(), *data.train_dataloader()]

    assert [batch.sources.count("synthetic") for batch in batches] == [0, 1, 3, 4, 4, 4]  # 4/3 and 8/3 are rounded
    assert isinstance(batches[0].image, Pixels)
    assert isinstance(batches[4].image, VQTokens)


def test_a_resumed_run_keeps_its_fraction_and_its_pairs(make_source: MakeSource, make_shards: MakeShards) -> None:
    source, shards = make_source(4), make_shards(4)
    schedule = LinearFraction(0.0, 1.0, num_steps=4)
    straight = mix(source, shards, schedule)
    expected = [batch.captions for _ in range(2) for batch in straight.train_dataloader()]
    stopped = mix(source, shards, schedule)
    assert len(list(islice(stopped.train_dataloader(), 2))) == 2
    state = stopped.state_dict()
    assert state == {"step": 2, "drawn": [7, 1]}

    # Lightning restores the state before the loader exists, or after, if a schedule needs the length of an epoch.
    early, late = mix(source, shards, schedule), mix(source, shards, schedule)
    early.load_state_dict(state)
    loader = late.train_dataloader()
    late.load_state_dict(state)
    assert [batch.captions for batch in early.train_dataloader()] == expected[2:5]
    assert [batch.captions for batch in loader] == expected[2:5]


@pytest.mark.parametrize(("fraction", "image_type"), [(0.0, Pixels), (1.0, VQTokens)])
def test_only_real_or_synthetic(
    make_source: MakeSource, make_shards: MakeShards, fraction: float, image_type: type
) -> None:
    data = mix(make_source(4), make_shards(4), ConstantFraction(fraction))

    assert all(isinstance(batch.image, image_type) for batch in data.train_dataloader())


def test_no_photos_to_learn_from(make_shards: MakeShards) -> None:
    shards = make_shards(4)
    (batch,) = mix(None, shards, ConstantFraction(1.0)).train_dataloader()
    assert batch.sources == ("synthetic",) * 4
    with pytest.raises(ValueError, match=r"2 photos.*'train'.*synthetic_fraction"):
        list(mix(None, shards, ConstantFraction(0.5)).train_dataloader())


def test_photos_alone_count_towards_the_limit_of_bad_images(
    make_source: MakeSource, make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = mix(make_source(5), make_shards(7), ConstantFraction(0.75))
    counts: list[int] = []
    monkeypatch.setattr(data.real.bad_images, "add", lambda names, num_read: counts.append(num_read))
    for batch in data.train_dataloader():
        data.on_before_batch_transfer(batch, 0)
    assert set(counts) == {1}


def test_a_second_fit_reads_the_photos_anew(make_source: MakeSource, make_shards: MakeShards) -> None:
    data = mix(make_source(5), make_shards(7), ConstantFraction(0.25))
    first = data.train_pairs
    assert data.train_pairs is first
    data.real.image_size = 16
    data.setup("fit")
    (batch,) = islice(data.train_dataloader(), 1)
    assert isinstance(batch.image, MixedImages)
    pixels = batch.image.parts[0]
    assert isinstance(pixels, Pixels)
    assert pixels.values.shape[-1] == 16


def test_evaluation_is_that_of_the_photos(make_source: MakeSource, make_shards: MakeShards) -> None:
    data = mix(make_source(4, bad=[1]), make_shards(4), ConstantFraction(0.5), rank=1, world_size=2)
    loader = data.val_dataloader()
    assert isinstance(loader, DataLoader)
    (batch,) = loader
    assert batch.keys == ("002", "003")

    replaced = data.real.train_pairs[[2]]
    data.on_before_batch_transfer(replaced, 0)
    assert list(data.real.bad_images.names) == list(replaced.skipped) != []


def test_what_is_left_out_of_a_prediction_are_photos(make_source: MakeSource, make_shards: MakeShards) -> None:
    real = RealDataModule(predict=make_source(3), image_size=8, num_workers=0)
    data = MixedDataModule(real, SyntheticDataModule(make_shards(1)), 4, ConstantFraction(0.5), num_workers=0)
    data.setup("predict")
    data.skip({("real", "001")})
    assert [batch.keys for batch in data.predict_dataloader()] == [("000", "002")]
    assert data.provenance() == {"image_size": 8, "is_evaluation": False}
    records = [("real", "002"), ("other", "002")]
    assert isinstance(data, HasInputs)
    assert data.fingerprint_inputs(records) == real.fingerprint_inputs(records)
    assert real.fingerprint_inputs(records)[0] is not None


def test_a_fraction_that_is_no_whole_number_of_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.3 of 4.*1\.2.*whole number"):
        MixedDataModule(RealDataModule(), SyntheticDataModule("gone"), 4, ConstantFraction(0.3))


def test_batches_move_between_devices(make_source: MakeSource, make_shards: MakeShards) -> None:
    batch = next(iter(mix(make_source(5), make_shards(7), ConstantFraction(0.25)).train_dataloader()))

    moved = batch.to("meta")
    assert isinstance(moved.image, MixedImages)
    assert isinstance(moved.image.parts[1], VQTokens)
    assert moved.image.parts[1].ids.device == torch.device("meta")


def test_photos_beside_weighted_pairs_have_the_weight_one(make_source: MakeSource, make_shards: MakeScored) -> None:
    shards = make_shards(4, scores=((0.0,), (1.0,), (2.0,), (3.0,)))
    data = mix(make_source(4), shards, ConstantFraction(0.5))
    data.synthetic.weights = ExponentialWeights()
    expected = ExponentialWeights()(np.arange(4, dtype=np.float32))
    batch = next(iter(data.train_dataloader()))
    assert batch.weights is not None
    assert data.training_captions()[4:] == [(f"synthetic {number}",) for number in range(4)]
    rows = [int(key.removeprefix("s")) for key in batch.keys[2:]]
    assert batch.weights.tolist() == [1.0, 1.0, *expected[rows].tolist()]


def test_training_batches_have_the_captions_of_photos_and_synthetic_images(
    make_source: MakeSource, make_shards: MakeShards
) -> None:
    data = mix(make_source(2), make_shards(2), ConstantFraction(0.5))
    photos = [tuple(f"caption {caption} of {number:03d}" for caption in range(2)) for number in range(2)]
    assert data.training_captions() == [*photos, ("synthetic 0",), ("synthetic 1",)]
    for batch in data.train_dataloader():
        assert len(batch.references) == len(batch) == 4
        assert all(caption in texts for caption, texts in zip(batch.captions, batch.references, strict=True))
        assert [len(texts) for texts in batch.references] == [2, 2, 1, 1]


def test_synthetic_pairs_alone_have_training_captions(make_shards: MakeShards) -> None:
    data = mix(None, make_shards(2), ConstantFraction(1.0))
    assert data.training_captions() == [("synthetic 0",), ("synthetic 1",)]
