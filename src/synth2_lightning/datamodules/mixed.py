"""Mixed batches of photos and synthetic pairs (Synth², arXiv 2403.07750)."""

from collections.abc import Container, Sequence
from typing import Any

from torch.utils.data import DataLoader

from synth2_lightning.datamodules.base import ImageTextDataModule
from synth2_lightning.datamodules.fraction import FractionSchedule
from synth2_lightning.datamodules.mirroring import Mirroring
from synth2_lightning.datamodules.pairs import BatchDataset
from synth2_lightning.datamodules.real import RealDataModule
from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.interfaces import ImageEncoder
from synth2_lightning.types import ImageTextBatch


class MixedPairs(BatchDataset):
    """Concatenation of real pairs, if there are any, and synthetic pairs; batches contain real pairs first."""

    def __init__(self, real: BatchDataset | None, synthetic: BatchDataset) -> None:
        self.real = real
        self.synthetic = synthetic
        self.num_real = len(real) if real is not None else 0

    def __len__(self) -> int:
        return self.num_real + len(self.synthetic)

    def fingerprint(self) -> str:
        """Return the checksums of real and synthetic pairs."""
        real = self.real.fingerprint() if self.real is not None else "none"
        return f"{real}, {self.synthetic.fingerprint()}"

    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        """Return a batch of real and synthetic pairs, real ones first."""
        real, synthetic = self._split(indices)
        batches = []
        if real and self.real is not None:
            batches.append(self.real.read(real))
        if synthetic:
            batches.append(self.synthetic.read(synthetic))
        return ImageTextBatch.concat(batches)

    def image_captions(self, indices: Sequence[int]) -> list[tuple[str, ...]]:
        """Return all captions of each different photo and of each different synthetic image among some pairs."""
        real, synthetic = self._split(indices)
        captions = self.real.image_captions(real) if self.real is not None else []
        return captions + self.synthetic.image_captions(synthetic)

    def _split(self, indices: Sequence[int]) -> tuple[list[int], list[int]]:
        real = [index for index in indices if index < self.num_real]
        return real, [index - self.num_real for index in indices if index >= self.num_real]


class MixedDataModule(ImageTextDataModule):
    """Datamodule with batches of photos and synthetic pairs, in the same numbers on all ranks in each step.

    Training uses ``batch_size``, ``seed`` and ``num_workers`` of this datamodule and ignores those of the two others.
    Validation, test and predict use the photos. An epoch has as many full batches as real and synthetic pairs
    fill together, independent of the fraction, so that runs with different fractions are equally long.

    Args:
        real: Photos. Without a training split, the fraction must always be 1.
        synthetic: Synthetic pairs.
        batch_size: Real and synthetic pairs together, per step and rank.
        synthetic_fraction: Schedule of the fraction of synthetic pairs in a batch, rounded to integer numbers of pairs.
        num_workers: Number of data loader worker processes per rank.
        seed: Seed of the order of the pairs.
        image_encoder: Encoder of the model, passed to ``real``; set by the command line.
        mirroring: Set for ``real`` and ``synthetic``; ``None`` leaves theirs as they are.

    Raises:
        ValueError: If a constant fraction of a batch is not an integer number of pairs.

    Example:
        >>> from synth2_lightning.datamodules.fraction import ConstantFraction
        >>> data = MixedDataModule(RealDataModule(), SyntheticDataModule("shards/coco"), 64, ConstantFraction(0.25))
        >>> data.count_pairs(step=0)
        (48, 16)
    """

    def __init__(
        self,
        real: RealDataModule,
        synthetic: SyntheticDataModule,
        batch_size: int,
        synthetic_fraction: FractionSchedule,
        num_workers: int = 2,
        seed: int = 0,
        image_encoder: ImageEncoder | None = None,
        mirroring: Mirroring | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        synthetic_fraction.check(batch_size)
        self.real = real
        if image_encoder is not None:
            real.image_encoder = image_encoder
        if mirroring is not None:
            real.mirroring = synthetic.mirroring = mirroring
        self.synthetic = synthetic
        self.synthetic_fraction = synthetic_fraction

    def count_pairs(self, step: int) -> tuple[int, int]:
        """Return the numbers of photos and of synthetic pairs in the batch of one rank and step."""
        num_synthetic = round(self.synthetic_fraction(step) * self.batch_size)
        return self.batch_size - num_synthetic, num_synthetic

    def setup(self, stage: str) -> None:
        """Set up both datamodules."""
        super().setup(stage)
        for part in (self.real, self.synthetic):
            part.trainer = self.trainer
            part.setup(stage)

    def provenance(self) -> dict[str, Any]:
        """Return the image size of predictions, and whether the photos are of an evaluation split."""
        return self.real.provenance()

    def skip(self, records: Container[tuple[str, str]]) -> None:
        """Skip photos, given as pairs of source and key, in the prediction; after ``setup("predict")``."""
        self.real.skip(records)

    def fingerprint_inputs(self, records: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return fingerprints of the captions and files of the photos of records."""
        return self.real.fingerprint_inputs(records)

    def make_train_pairs(self) -> MixedPairs:
        """Return real and synthetic pairs, real ones first.

        Raises:
            ValueError: If the first batch has photos, but there is no training split.
        """
        if not self.real.has_train and (num_real := self.count_pairs(0)[0]):
            raise ValueError(
                f"A batch has {num_real} photos, but real has no training photos; expected a source as its argument "
                "'train', or a synthetic_fraction of 1."
            )
        real = self.real.train_pairs if self.real.has_train else None
        return MixedPairs(real, self.synthetic.train_pairs)

    def count_train_pairs(self) -> tuple[int, ...]:
        """Return the numbers of real and of synthetic training pairs."""
        num_real = self.real.count_train_pairs() if self.real.has_train else (0,)
        return *num_real, *self.synthetic.count_train_pairs()

    def count_variants(self) -> tuple[int, ...]:
        """Return the numbers of variants of real and of synthetic training pairs."""
        num_real = self.real.count_variants() if self.real.has_train else (1,)
        return *num_real, *self.synthetic.count_variants()

    def val_dataloader(self) -> DataLoader[ImageTextBatch] | Sequence[DataLoader[ImageTextBatch]]:
        """Return the data loader of the validation photos."""
        return self.real.val_dataloader()

    def test_dataloader(self) -> DataLoader[ImageTextBatch]:
        """Return the data loader of the test photos."""
        return self.real.test_dataloader()

    def predict_dataloader(self) -> DataLoader[ImageTextBatch]:
        """Return the data loader of the photos to predict."""
        return self.real.predict_dataloader()

    def on_before_batch_transfer(self, batch: ImageTextBatch, dataloader_idx: int) -> ImageTextBatch:
        """Count the unreadable photos of a batch."""
        return self.real.on_before_batch_transfer(batch, dataloader_idx)
