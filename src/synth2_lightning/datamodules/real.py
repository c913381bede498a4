"""Datamodule of photos with human captions."""

from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from synth2_lightning.datamodules.bad_images import BadImages
from synth2_lightning.datamodules.base import ImageTextDataModule
from synth2_lightning.datamodules.mirroring import Mirroring
from synth2_lightning.datamodules.pairs import BatchDataset, Subset
from synth2_lightning.datamodules.photos import ImageReader, PhotoPairs, Photos
from synth2_lightning.datamodules.sampling import EvaluationBatchSampler, PredictionBatchSampler
from synth2_lightning.interfaces import ImageEncoder, ImageTextSource
from synth2_lightning.io.fingerprints import fingerprint_texts
from synth2_lightning.types import ImageTextBatch, MixedImages, Pixels

_STAGES = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


class RealDataModule(ImageTextDataModule):
    """Datamodule of photos: training pairs, and images with all their captions for evaluation and prediction.

    Args:
        train: Training photos; each caption forms a pair.
        val: Validation photos.
        test: Test photos.
        predict: Photos to caption or tokenize, each once over all ranks.
        batch_size: Pairs per step and rank.
        val_batch_size: Images per batch and rank in validation, test and predict.
        image_encoder: Encoder of the model, whose input size the photos get: the shorter side is resized to it and the
            central square is cropped. The command line passes the encoder of the model.
        image_size: Height and width in pixels for a model without image encoder; it cannot differ from the encoder's.
        num_workers: Number of data loader worker processes per rank.
        max_bad_images: Maximum number of unreadable images, of 1,000 in succession, that a rank replaces by others.
        seed: Seed of the order of the training pairs.
        mirroring: Mirrors each training image with probability 1/2 in each pass over the pairs; ``None`` mirrors none.

    Example:
        >>> from synth2_lightning.scenes.source import ScenesSource
        >>> from synth2_lightning.testing import TinyImageTokenizer
        >>> encoder = TinyImageTokenizer()  # of images of 8 by 8 pixels
        >>> data = RealDataModule(test=ScenesSource("test", 5), image_encoder=encoder, num_workers=0)
        >>> data.setup("test")
        >>> next(iter(data.test_dataloader())).image.values.shape
        torch.Size([5, 3, 8, 8])
    """

    def __init__(  # noqa: PLR0913 - four sources, each optional
        self,
        train: ImageTextSource | None = None,
        val: ImageTextSource | None = None,
        test: ImageTextSource | None = None,
        predict: ImageTextSource | None = None,
        batch_size: int = 64,
        val_batch_size: int = 64,
        image_encoder: ImageEncoder | None = None,
        image_size: int | None = None,
        num_workers: int = 2,
        max_bad_images: int = 10,
        seed: int = 0,
        mirroring: Mirroring | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, mirroring)
        if val_batch_size < 1:
            raise ValueError(f"{type(self).__name__} got val_batch_size={val_batch_size}; expected 1 or more pairs.")
        self.sources = {"train": train, "val": val, "test": test, "predict": predict}
        self.val_batch_size = val_batch_size
        self.image_encoder = image_encoder
        self.image_size = image_size
        self.bad_images = BadImages(max_bad_images)
        self._to_predict: Sequence[int] | None = None
        self._indices: dict[str, int] = {}

    def provenance(self) -> dict[str, Any]:
        """Return the image size of predictions, and whether the photos are of an evaluation split."""
        source = self.sources["predict"]
        return {"image_size": self._find_image_size(), "is_evaluation": source is not None and source.is_evaluation}

    def setup(self, stage: str) -> None:
        """Load the sources that the stage needs.

        Raises:
            ValueError: If the training photos are an evaluation split.
        """
        super().setup(stage)
        train = self.sources["train"]
        if stage == "fit" and train is not None and train.is_evaluation:
            raise ValueError(
                f"The training photos, {train.name!r}, are an evaluation split, so that scores on it would be invalid. "
                "Expected a training split as `train`; use this one as `val` or `test`."
            )
        self._to_predict = None
        self._indices = {}
        for split in _STAGES[stage]:
            if (source := self.sources[split]) is not None:
                source.load()

    def skip(self, records: Container[tuple[str, str]]) -> None:
        """Skip images, given as pairs of source and key, in the prediction; after ``setup("predict")``."""
        if (source := self.sources["predict"]) is not None:
            indices = range(len(source))
            self._to_predict = [index for index in indices if (source.name, source.key(index)) not in records]

    def fingerprint_inputs(self, records: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return fingerprints of the captions and files of the photos of records."""
        source = self.sources["predict"]
        if source is None:
            return [None] * len(records)
        if not self._indices:
            self._indices = {source.key(index): index for index in range(len(source))}

        def fingerprint(record: tuple[str, str]) -> str | None:
            name, key = record
            return _fingerprint(source, self._indices.get(key)) if name == source.name else None

        # On network file systems each file is a request; meanwhile other ranks wait in a collective, up to its timeout.
        with ThreadPoolExecutor(16) as readers:
            return list(readers.map(fingerprint, records))

    @property
    def has_train(self) -> bool:
        """Whether there are training pairs."""
        return self.sources["train"] is not None

    def make_train_pairs(self) -> BatchDataset:
        """Return the pairs of a photo and one of its captions."""
        return PhotoPairs(self._make_reader("train"))

    def val_dataloader(self) -> DataLoader[ImageTextBatch] | Sequence[DataLoader[ImageTextBatch]]:
        """Return the data loader of the validation photos; none in ``fit`` without a validation split."""
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        if self.sources["val"] is None and fitting:
            return []
        return self._evaluate("val", EvaluationBatchSampler)

    def test_dataloader(self) -> DataLoader[ImageTextBatch]:
        """Return the data loader of the test photos."""
        return self._evaluate("test", EvaluationBatchSampler)

    def predict_dataloader(self) -> DataLoader[ImageTextBatch]:
        """Return the data loader of the photos to predict, each once over all ranks, without skipped ones."""
        return self._evaluate("predict", PredictionBatchSampler, self._to_predict)

    def on_before_batch_transfer(self, batch: ImageTextBatch, dataloader_idx: int) -> ImageTextBatch:
        """Count the unreadable images of a batch; not in the workers, because each counts its own.

        Raises:
            ValueError: If there are more than ``max_bad_images`` of 1,000.
        """
        parts = batch.image.parts if isinstance(batch.image, MixedImages) else (batch.image,)
        self.bad_images.add(batch.skipped, sum(len(part) for part in parts if isinstance(part, Pixels)))
        return batch

    def _evaluate(
        self, split: str, sampler: type[EvaluationBatchSampler], items: Sequence[int] | None = None
    ) -> DataLoader[ImageTextBatch]:
        dataset: BatchDataset = Photos(self._make_reader(split))
        if items is not None:
            dataset = Subset(dataset, items)
        batches = sampler(len(dataset), self.val_batch_size, self.rank, self.world_size)
        return DataLoader(dataset=dataset, sampler=batches, **self.loader_settings())

    def _make_reader(self, split: str) -> ImageReader:
        source = self.sources[split]
        if source is None:
            raise ValueError(
                f"{type(self).__name__} has no {split!r} photos; expected a source as its argument {split!r}."
            )
        return ImageReader(source, self._find_image_size(), self.bad_images.limit)

    def _find_image_size(self) -> int:
        expected = self.image_size if self.image_encoder is None else self.image_encoder.image_size
        if expected is None:
            raise ValueError(
                f"{type(self).__name__} got neither image_encoder nor image_size; expected the encoder of the model. "
                "Pass it as image_encoder; for a model without one, set image_size to the size of its images."
            )
        if self.image_size not in (None, expected):
            raise ValueError(
                f"{type(self).__name__} got image_size={self.image_size}, but its image_encoder expects images of "
                f"{expected} by {expected} pixels. Remove image_size."
            )
        return expected


def find_image_encoder(module: nn.Module) -> ImageEncoder | None:
    """Return the first image encoder of a module, which the command line passes to datamodules of photos.

    Example:
        >>> from synth2_lightning.modules.tokenization import TokenizationModule
        >>> from synth2_lightning.testing import TinyImageTokenizer
        >>> find_image_encoder(TokenizationModule(TinyImageTokenizer())).image_size
        8
    """
    return next((part for part in module.modules() if isinstance(part, ImageEncoder)), None)


def _fingerprint(source: ImageTextSource, index: int | None) -> str:
    if index is None:
        return ""
    return fingerprint_texts([source.image_fingerprint(index), source.prompt(index) or "", *source.captions(index)])
