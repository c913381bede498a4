"""Photographs with human captions."""

from collections.abc import Container, Sequence
from typing import Any

from torch.utils.data import DataLoader

from synth2_lightning.datamodules.bad_pictures import BadPictures
from synth2_lightning.datamodules.base import ImageTextDataModule
from synth2_lightning.datamodules.pairs import BatchDataset, Selection
from synth2_lightning.datamodules.photographs import PhotographPairs, Photographs, PictureReader
from synth2_lightning.datamodules.sampling import EvaluationSampler, PredictionSampler
from synth2_lightning.fingerprints import fingerprint_texts
from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.types import ImageTextBatch

_STAGES = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


class RealDataModule(ImageTextDataModule):
    """Photographs: pairs to learn from, and pictures with all their captions to be judged by.

    Args:
        train: Photographs to learn from; every caption makes a pair.
        val: Photographs for validation.
        test: Photographs for the test.
        predict: Photographs to be captioned or made into tokens; each comes once over all ranks.
        batch_size: Pairs per step and rank.
        val_batch_size: Pictures per batch and rank in validation, test and predict.
        image_size: Height and width in pixels; the short side is resized to it and the middle is cut out. ``None``
            takes what the model's encoder works with: for run files that are for any model.
        num_workers: Processes that read ahead, per rank.
        max_bad_pictures: How many unreadable pictures a rank replaces by others before it stops.
        seed: Order of the training pairs.

    Example:
        >>> from synth2_lightning.sources.coco import CocoSource
        >>> data = RealDataModule(CocoSource("captions_train.json", "images", limit=1000), batch_size=64)
        >>> data.batch_size
        64
    """

    def __init__(
        self,
        train: ImageTextSource | None = None,
        val: ImageTextSource | None = None,
        test: ImageTextSource | None = None,
        predict: ImageTextSource | None = None,
        batch_size: int = 64,
        val_batch_size: int = 64,
        image_size: int | None = 224,
        num_workers: int = 2,
        max_bad_pictures: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.sources = {"train": train, "val": val, "test": test, "predict": predict}
        self.val_batch_size = val_batch_size
        self.image_size = image_size
        self.bad_pictures = BadPictures(max_bad_pictures)
        self._to_predict: Sequence[int] | None = None
        self._places: dict[str, int] = {}

    def provenance(self) -> dict[str, Any]:
        """Give what decides the pixels that a prediction sees, and whether they are of an evaluation split."""
        source = self.sources["predict"]
        return {"image_size": self._find_image_size(), "is_evaluation": source is not None and source.is_evaluation}

    def setup(self, stage: str) -> None:
        """Read the indices of the sources that the stage needs.

        Raises:
            ValueError: If the photographs to learn from are known to be an evaluation split.
        """
        super().setup(stage)
        train = self.sources["train"]
        if stage == "fit" and train is not None and train.is_evaluation:
            raise ValueError(
                f"The photographs to learn from, {train.name!r}, are an evaluation split: what is scored on it "
                "afterwards would mean nothing. Expected a training split as `train`; name this one as `val` or `test`."
            )
        self._to_predict = None
        self._places = {}
        for split in _STAGES[stage]:
            if (source := self.sources[split]) is not None:
                source.load()

    def leave_out(self, records: Container[tuple[str, str]]) -> None:
        """Leave pictures, named by source and key, out of the prediction that was set up."""
        if (source := self.sources["predict"]) is not None:
            indices = range(len(source))
            self._to_predict = [index for index in indices if (source.name, source.key(index)) not in records]

    def fingerprint_inputs(self, records: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return fingerprints of the captions and files of the photographs that records are made from."""
        source = self.sources["predict"]
        if source is None:
            return [None] * len(records)
        if not self._places:
            self._places = {source.key(index): index for index in range(len(source))}
        places = self._places
        return [_fingerprint(source, places.get(key)) if name == source.name else None for name, key in records]

    @property
    def has_train(self) -> bool:
        """Whether there is something to learn from."""
        return self.sources["train"] is not None

    def make_train_pairs(self) -> BatchDataset:
        """Give the pairs of a photograph and one of its captions."""
        return PhotographPairs(self._make_reader("train"))

    def val_dataloader(self) -> DataLoader[ImageTextBatch] | Sequence[DataLoader[ImageTextBatch]]:
        """Pictures with all their captions; nothing in ``fit`` where there is no such split."""
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        if self.sources["val"] is None and fitting:
            return []
        return self._evaluate("val", EvaluationSampler)

    def test_dataloader(self) -> DataLoader[ImageTextBatch]:
        """Pictures with all their captions."""
        return self._evaluate("test", EvaluationSampler)

    def predict_dataloader(self) -> DataLoader[ImageTextBatch]:
        """Pictures with all their captions, each once over all ranks; without those that were left out."""
        return self._evaluate("predict", PredictionSampler, self._to_predict)

    def on_before_batch_transfer(self, batch: ImageTextBatch, dataloader_idx: int) -> ImageTextBatch:
        """Count the bad pictures, here because workers do not see each other's.

        Raises:
            ValueError: If there are more than ``max_bad_pictures``.
        """
        self.bad_pictures.add(batch.skipped)
        return batch

    def _evaluate(
        self, split: str, sampler: type[EvaluationSampler], items: Sequence[int] | None = None
    ) -> DataLoader[ImageTextBatch]:
        dataset: BatchDataset = Photographs(self._make_reader(split))
        if items is not None:
            dataset = Selection(dataset, items)
        return self.make_evaluation_loader(
            dataset, sampler(len(dataset), self.val_batch_size, self.rank, self.world_size)
        )

    def _make_reader(self, split: str) -> PictureReader:
        source = self.sources[split]
        if source is None:
            raise ValueError(
                f"RealDataModule has no {split!r} photographs; expected a source. Set `--data.init_args.{split}`."
            )
        return PictureReader(source, self._find_image_size(), self.bad_pictures.limit)

    def _find_image_size(self) -> int:
        if self.image_size is not None:
            return self.image_size
        encoder = getattr(self.trainer and self.trainer.lightning_module, "image_encoder", None)
        if encoder is None:
            raise ValueError(
                "RealDataModule got image_size=None, but there is no model with an image_encoder to ask; expected "
                "pixels, such as 224. Set `--data.init_args.image_size`."
            )
        return int(encoder.image_size)


def _fingerprint(source: ImageTextSource, index: int | None) -> str:
    if index is None:
        return ""
    return fingerprint_texts([source.image_fingerprint(index), source.prompt(index) or "", *source.captions(index)])
