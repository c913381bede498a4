import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from synth2_lightning.datamodules.fraction import ConstantFraction
from synth2_lightning.datamodules.mixed import MixedDataModule
from synth2_lightning.datamodules.real import RealDataModule, find_image_encoder
from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.encoders.quantized import ResidualCodebookLearner
from synth2_lightning.interfaces import Skippable
from synth2_lightning.modules.codebook import CodebookModule
from synth2_lightning.scenes.source import ScenesSource
from synth2_lightning.sources.folder import FolderSource
from synth2_lightning.testing import TinyImageTokenizer
from synth2_lightning.types import ImageTextBatch, Pixels

MakeSource = Callable[..., FolderSource]
pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero"),  # no validation split
]


class KeyRecorder(LightningModule):
    """Records the captions and keys of its batches, and saves a checkpoint after ``stop_after`` training batches."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[str, ...]] = []
        self.judged: list[tuple[str, ...]] = []
        self.stop_after = stop_after

    def training_step(self, batch: ImageTextBatch, batch_idx: int) -> Tensor:
        self.seen.append(batch.captions)
        return self.weight.sum()

    def on_train_batch_end(self, outputs: Any, batch: ImageTextBatch, batch_idx: int) -> None:
        if len(self.seen) == self.stop_after:
            self.trainer.save_checkpoint(Path(self.trainer.default_root_dir) / "stopped.ckpt")

    def validation_step(self, batch: ImageTextBatch, batch_idx: int) -> None:
        self.judged.append(batch.keys)

    test_step = validation_step

    def predict_step(self, batch: ImageTextBatch, batch_idx: int) -> tuple[str, ...]:
        return batch.keys

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def make_trainer(folder: Path, **settings: Any) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **{"max_epochs": 3, **settings},
    )


def test_every_split_is_read(make_source: MakeSource, tmp_path: Path) -> None:
    train, val = make_source(5), make_source(3, name="val")
    data = RealDataModule(
        train, val, test=val, predict=val, batch_size=4, val_batch_size=2, image_size=8, num_workers=0
    )
    module, trainer = KeyRecorder(), make_trainer(tmp_path)
    trainer.fit(module, data)

    assert len(module.seen) == 3 * 2  # 10 pairs fill 2 batches of 4
    assert len(set(module.seen[0] + module.seen[1] + module.seen[2][:2])) == 10
    assert module.judged[-2:] == [("000", "001"), ("002",)]
    module.judged.clear()
    trainer.validate(module, data, verbose=False)
    trainer.test(module, data, verbose=False)
    assert module.judged == [("000", "001"), ("002",)] * 2
    assert trainer.predict(module, data) == [("000", "001"), ("002",)]


@pytest.mark.parametrize(("num_workers", "stop_after"), [(0, 2), (0, 3), (2, 5)])
def test_a_resumed_run_starts_with_the_next_batch(
    make_source: MakeSource, tmp_path: Path, num_workers: int, stop_after: int
) -> None:
    def make_data() -> RealDataModule:
        return RealDataModule(source, batch_size=4, image_size=8, num_workers=num_workers)

    source = make_source(6)  # 12 pairs, 3 steps an epoch
    straight = KeyRecorder(stop_after=stop_after)
    make_trainer(tmp_path).fit(straight, make_data())
    resumed = KeyRecorder()
    trainer = make_trainer(tmp_path)
    trainer.fit(resumed, make_data(), ckpt_path=tmp_path / "stopped.ckpt", weights_only=True)

    assert len(straight.seen) == 9
    assert resumed.seen == straight.seen[stop_after:]


def test_limited_and_reloaded_epochs_start_where_the_last_one_ended(make_source: MakeSource, tmp_path: Path) -> None:
    data = RealDataModule(make_source(6), batch_size=4, image_size=8, num_workers=0)
    straight, limited = KeyRecorder(), KeyRecorder()
    make_trainer(tmp_path).fit(straight, data)
    trainer = make_trainer(tmp_path, limit_train_batches=2, max_epochs=4, reload_dataloaders_every_n_epochs=1)
    trainer.fit(limited, data)

    assert limited.seen == straight.seen[:8]


def test_fewer_pairs_than_a_batch_repeat(make_source: MakeSource) -> None:
    data = RealDataModule(make_source(1), batch_size=5, image_size=8, num_workers=0)
    data.setup("fit")
    (batch,) = data.train_dataloader()

    assert sorted(Counter(batch.captions).values()) == [2, 3]


def test_bad_images_are_counted_over_the_run(
    make_source: MakeSource, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = make_source(8, bad=[1, 4, 6])
    data = RealDataModule(source, batch_size=4, image_size=8, num_workers=0, max_bad_images=3)
    make_trainer(tmp_path).fit(KeyRecorder(), data)
    assert len(data.bad_images.names) == 3
    assert caplog.text.count("Replaced by another image: real/004") == 1

    strict = RealDataModule(source, batch_size=4, image_size=8, num_workers=0, max_bad_images=2)
    with pytest.raises(ValueError, match=r"3 .*could not be read.*real/001.*=2"):
        make_trainer(tmp_path).fit(KeyRecorder(), strict)


def test_evaluation_splits_are_not_trained_on() -> None:
    data = RealDataModule(train=ScenesSource("test", num_images=4), val=ScenesSource("val", num_images=4))
    with pytest.raises(ValueError, match=r"'scenes'.*evaluation.*split"):
        data.setup("fit")
    data.setup("validate")
    RealDataModule(train=ScenesSource("train", num_images=4)).setup("fit")


def test_a_missing_split_is_named(make_source: MakeSource) -> None:
    data = RealDataModule(make_source(1), image_size=8, num_workers=0)

    for ask in (data.val_dataloader, data.test_dataloader, data.predict_dataloader):
        with pytest.raises(ValueError, match=r"argument"):
            ask()
    with pytest.raises(ValueError, match=r"RealDataModule.*'train'"):
        RealDataModule().train_dataloader()


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"RealDataModule.*batch_size=0.*1"):
        RealDataModule(batch_size=0)
    with pytest.raises(ValueError, match=r"RealDataModule.*val_batch_size=0.*1"):
        RealDataModule(val_batch_size=0)


def test_overfit_batches_is_refused_with_another_way(make_source: MakeSource, tmp_path: Path) -> None:
    data = RealDataModule(make_source(4), batch_size=2, image_size=8, num_workers=0)
    with (
        pytest.warns(UserWarning, match=r"requested.*overfit"),
        pytest.raises(TypeError, match=r"`--trainer.*overfit_batches`.*`limit`"),
    ):
        make_trainer(tmp_path, overfit_batches=1).fit(KeyRecorder(), data)


def test_what_is_left_out_is_not_predicted(make_source: MakeSource, tmp_path: Path) -> None:
    data = RealDataModule(predict=make_source(5), val_batch_size=2, image_size=8, num_workers=0)
    assert isinstance(data, Skippable)
    data.setup("predict")
    data.skip({("real", "001"), ("real", "003"), ("other", "000")})
    assert [batch.keys for batch in data.predict_dataloader()] == [("000", "002"), ("004",)]

    assert make_trainer(tmp_path).predict(KeyRecorder(), data) == [("000", "001"), ("002", "003"), ("004",)]
    assert data.provenance() == {"image_size": 8, "is_evaluation": False}


def test_files_of_photos_are_compared_several_at_a_time(
    make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = RealDataModule(predict=make_source(8), image_size=8)
    data.setup("predict")
    together = threading.Barrier(8, timeout=10)
    monkeypatch.setattr(FolderSource, "image_fingerprint", lambda *_: str(together.wait()))
    records = [("real", f"{number:03d}") for number in range(8)]
    assert len(data.fingerprint_inputs(records)) == 8


def test_provenance_records_whether_an_evaluation_split_is_predicted() -> None:
    assert RealDataModule(predict=ScenesSource("val", num_images=4), image_size=8).provenance()["is_evaluation"]
    assert not RealDataModule(predict=ScenesSource("train", num_images=4), image_size=8).provenance()["is_evaluation"]


def test_a_rank_may_have_nothing_to_predict() -> None:
    assert RealDataModule().allow_zero_length_dataloader_with_multiple_devices


def test_the_size_of_images_is_that_of_the_encoder(make_source: MakeSource) -> None:
    source = make_source(2)
    data = RealDataModule(test=source, num_workers=0, image_encoder=TinyImageTokenizer())
    data.setup("test")
    assert next(iter(data.test_dataloader())).image.values.shape == (2, 3, 8, 8)
    assert data.provenance()["image_size"] == 8


def test_neither_encoder_nor_size_is_refused(make_source: MakeSource) -> None:
    data = RealDataModule(test=make_source(2), num_workers=0)
    data.setup("test")
    with pytest.raises(ValueError, match=r"RealDataModule.*image_encoder.*image_size"):
        data.test_dataloader()


@pytest.mark.parametrize("image_size", [4, 224])
def test_a_size_that_is_not_the_encoders_is_refused(make_source: MakeSource, image_size: int) -> None:
    source, encoder = make_source(2), TinyImageTokenizer()
    data = RealDataModule(source, test=source, num_workers=0, image_encoder=encoder, image_size=image_size)
    data.setup("fit")
    for use in (data.train_dataloader, data.test_dataloader, data.provenance):
        with pytest.raises(ValueError, match=rf"image_size={image_size}.*image_encoder.*8 by 8"):
            use()
    same = RealDataModule(source, image_encoder=encoder, image_size=8, num_workers=0)
    same.setup("fit")
    image = next(iter(same.train_dataloader())).image
    assert isinstance(image, Pixels)
    assert image.values.shape[1:] == (3, 8, 8)


def test_the_encoder_of_a_module_is_found_at_any_depth() -> None:
    encoder = TinyImageTokenizer()
    assert find_image_encoder(nn.ModuleList([nn.Identity(), encoder])) is encoder
    assert find_image_encoder(CodebookModule(ResidualCodebookLearner(encoder, codebook_size=4))) is encoder
    assert find_image_encoder(nn.Identity()) is None


def test_a_mixture_hands_its_encoder_to_the_photos() -> None:
    encoder, other, fraction = TinyImageTokenizer(), TinyImageTokenizer(), ConstantFraction(1.0)
    synthetic = SyntheticDataModule("shards")
    assert (
        MixedDataModule(RealDataModule(), synthetic, 4, fraction, image_encoder=encoder).real.image_encoder is encoder
    )
    assert MixedDataModule(RealDataModule(image_encoder=other), synthetic, 4, fraction).real.image_encoder is other
