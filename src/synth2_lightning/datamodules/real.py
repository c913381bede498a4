"""Photos with human captions."""

from collections.abc import Container, Sequence
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from synth2_lightning.datamodules.bad_images import BadImages
from synth2_lightning.datamodules.base import ImageTextDataModule
from synth2_lightning.datamodules.pairs import BatchDataset, Selection
from synth2_lightning.datamodules.photos import ImageReader, PhotoPairs, Photos
from synth2_lightning.datamodules.sampling import EvaluationSampler, PredictionSampler
from synth2_lightning.interfaces import ImageEncoder, ImageTextSource
from synth2_lightning.io.fingerprints import fingerprint_texts
from synth2_lightning.types import ImageTextBatch

_STAGES = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


class RealDataModule(ImageTextDataModule):
    """Photos: pairs to learn from, and images with all their captions to be judged by.

    Args:
        train: Photos to learn from; every caption makes a pair.
        val: Photos for validation.
        test: Photos for the test.
        predict: Photos to be captioned or made into tokens; each comes once over all ranks.
        batch_size: Pairs per step and rank.
        val_batch_size: Images per batch and rank in validation, test and predict.
        image_size: Height and width in pixels; the short side is resized to it and the middle is cut out. ``None``
            takes the size of ``image_encoder``: for run files that are for any model.
        num_workers: Processes that read ahead, per rank.
        max_bad_images: How many unreadable images a rank replaces by others before it stops.
        seed: Order of the training pairs.
        image_encoder: Encoder of the model; the command line passes it.

    Example:
        >>> from synth2_lightning.sources.coco import CocoSource
        >>> data = RealDataModule(CocoSource("captions_train.json", "images", limit=1000), batch_size=64)
        >>> data.batch_size
        64
    """

    def __init__(  # noqa: PLR0913 - four sources, each optional
        self,
        train: ImageTextSource | None = None,
        val: ImageTextSource | None = None,
        test: ImageTextSource | None = None,
        predict: ImageTextSource | None = None,
        batch_size: int = 64,
        val_batch_size: int = 64,
        image_size: int | None = 224,
        num_workers: int = 2,
        max_bad_images: int = 10,
        seed: int = 0,
        image_encoder: ImageEncoder | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.sources = {"train": train, "val": val, "test": test, "predict": predict}
        self.val_batch_size = val_batch_size
        self.image_size = image_size
        self.image_encoder = image_encoder
        self.bad_images = BadImages(max_bad_images)
        self._to_predict: Sequence[int] | None = None
        self._places: dict[str, int] = {}

    def provenance(self) -> dict[str, Any]:
        """Give what decides the pixels that a prediction sees, and whether they are of an evaluation split."""
        source = self.sources["predict"]
        return {"image_size": self._find_image_size(), "is_evaluation": source is not None and source.is_evaluation}

    def setup(self, stage: str) -> None:
        """Read the indices of the sources that the stage needs.

        Raises:
            ValueError: If the photos to learn from are known to be an evaluation split.
        """
        super().setup(stage)
        train = self.sources["train"]
        if stage == "fit" and train is not None and train.is_evaluation:
            raise ValueError(
                f"The photos to learn from, {train.name!r}, are an evaluation split: what is scored on it "
                "afterwards would mean nothing. Expected a training split as `train`; name this one as `val` or `test`."
            )
        self._to_predict = None
        self._places = {}
        for split in _STAGES[stage]:
            if (source := self.sources[split]) is not None:
                source.load()

    def skip(self, records: Container[tuple[str, str]]) -> None:
        """Leave images, named by source and key, out of the prediction that was set up."""
        if (source := self.sources["predict"]) is not None:
            indices = range(len(source))
            self._to_predict = [index for index in indices if (source.name, source.key(index)) not in records]

    def fingerprint_inputs(self, records: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return fingerprints of the captions and files of the photos that records are made from."""
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
        """Give the pairs of a photo and one of its captions."""
        return PhotoPairs(self._make_reader("train"))

    def val_dataloader(self) -> DataLoader[ImageTextBatch] | Sequence[DataLoader[ImageTextBatch]]:
        """Images with all their captions; nothing in ``fit`` where there is no such split."""
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        if self.sources["val"] is None and fitting:
            return []
        return self._evaluate("val", EvaluationSampler)

    def test_dataloader(self) -> DataLoader[ImageTextBatch]:
        """Images with all their captions."""
        return self._evaluate("test", EvaluationSampler)

    def predict_dataloader(self) -> DataLoader[ImageTextBatch]:
        """Images with all their captions, each once over all ranks; without those that were left out."""
        return self._evaluate("predict", PredictionSampler, self._to_predict)

    def on_before_batch_transfer(self, batch: ImageTextBatch, dataloader_idx: int) -> ImageTextBatch:
        """Count the bad images, here because workers do not see each other's.

        Raises:
            ValueError: If there are more than ``max_bad_images``.
        """
        self.bad_images.add(batch.skipped)
        return batch

    def _evaluate(
        self, split: str, sampler: type[EvaluationSampler], items: Sequence[int] | None = None
    ) -> DataLoader[ImageTextBatch]:
        dataset: BatchDataset = Photos(self._make_reader(split))
        if items is not None:
            dataset = Selection(dataset, items)
        return self.make_evaluation_loader(
            dataset, sampler(len(dataset), self.val_batch_size, self.rank, self.world_size)
        )

    def _make_reader(self, split: str) -> ImageReader:
        source = self.sources[split]
        if source is None:
            raise ValueError(
                f"RealDataModule has no {split!r} photos; expected a source. Set `--data.init_args.{split}`."
            )
        return ImageReader(source, self._find_image_size(), self.bad_images.limit)

    def _find_image_size(self) -> int:
        if self.image_size is not None:
            return self.image_size
        if self.image_encoder is None:
            raise ValueError(
                "RealDataModule got neither image_size nor image_encoder; expected one of them. Set "
                "`--data.init_args.image_size`, such as 224, or use a model with an image encoder."
            )
        return self.image_encoder.image_size


def find_image_encoder(module: nn.Module) -> ImageEncoder | None:
    """Return the first image encoder among the parts of a module; ``None`` if it has none.

    The command line passes it to datamodules that take an ``image_encoder``.

    Example:
        >>> from synth2_lightning.modules.tokenization import TokenizationModule
        >>> from synth2_lightning.testing import TinyImageTokenizer
        >>> find_image_encoder(TokenizationModule(TinyImageTokenizer())).image_size
        8
    """
    return next((part for part in module.children() if isinstance(part, ImageEncoder)), None)


def _fingerprint(source: ImageTextSource, index: int | None) -> str:
    if index is None:
        return ""
    return fingerprint_texts([source.image_fingerprint(index), source.prompt(index) or "", *source.captions(index)])
