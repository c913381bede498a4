"""Photographs and synthetic pairs in one batch (Synth², arXiv 2403.07750, section 3)."""

from collections.abc import Container, Sequence
from typing import Any

from torch.utils.data import DataLoader

from synth2_lightning.datamodules.base import ImageTextDataModule
from synth2_lightning.datamodules.pairs import BatchDataset
from synth2_lightning.datamodules.real import RealDataModule
from synth2_lightning.datamodules.share import ShareSchedule
from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.types import ImageTextBatch


class MixedPairs(BatchDataset):
    """Photographs first, synthetic pairs after, in the numbering and in the batch.

    Args:
        real: Pairs with photographs; ``None`` where there are none to learn from.
        synthetic: Pairs with image tokens.
    """

    def __init__(self, real: BatchDataset | None, synthetic: BatchDataset) -> None:
        self.real = real
        self.synthetic = synthetic
        self.num_real = len(real) if real is not None else 0

    def __len__(self) -> int:
        """Number of pairs of both kinds."""
        return self.num_real + len(self.synthetic)

    def fingerprint(self) -> str:
        """Checksums of both kinds."""
        real = self.real.fingerprint() if self.real is not None else "none"
        return f"{real}, {self.synthetic.fingerprint()}"

    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        """Read both parts of a batch and join them."""
        real = [index for index in indices if index < self.num_real]
        synthetic = [index - self.num_real for index in indices if index >= self.num_real]
        batches = []
        if real and self.real is not None:
            batches.append(self.real.read(real))
        if synthetic:
            batches.append(self.synthetic.read(synthetic))
        return ImageTextBatch.concat(batches)


class MixedDataModule(ImageTextDataModule):
    """Batches of photographs and synthetic pairs, in the same counts on every rank in every step.

    It owns the batch size of training and deals it out; there those of its two parts do not count, nor do their seeds
    and workers. Validation, test and predict are those of the photographs. An epoch is as many whole batches as the
    pairs of both kinds fill together, whatever the share: so a run with another share is as long.

    Args:
        real: Photographs. Without a training split, the share must be 1 throughout.
        synthetic: Synthetic pairs.
        batch_size: Pairs of both kinds together, per step and rank.
        synthetic_share: Share of synthetic pairs in a batch, by the step; rounded to whole pairs.
        num_workers: Processes that read ahead, per rank.
        seed: Order of the pairs.

    Raises:
        ValueError: If a constant share is no whole number of pairs.

    Example:
        >>> from synth2_lightning.datamodules.share import ConstantShare
        >>> data = MixedDataModule(RealDataModule(), SyntheticDataModule("shards/coco"), 64, ConstantShare(0.25))
        >>> data.count_pairs(step=0)
        (48, 16)
    """

    def __init__(
        self,
        real: RealDataModule,
        synthetic: SyntheticDataModule,
        batch_size: int,
        synthetic_share: ShareSchedule,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        synthetic_share.check(batch_size)
        self.real = real
        self.synthetic = synthetic
        self.synthetic_share = synthetic_share

    def count_pairs(self, step: int) -> tuple[int, int]:
        """Photographs and synthetic pairs that one rank takes in a step."""
        num_synthetic = round(self.synthetic_share(step) * self.batch_size)
        return self.batch_size - num_synthetic, num_synthetic

    def setup(self, stage: str) -> None:
        """Set both parts up."""
        super().setup(stage)
        for part in (self.real, self.synthetic):
            part.trainer = self.trainer
            part.setup(stage)

    def provenance(self) -> dict[str, Any]:
        """Give what decides the pixels that a prediction sees, and whether they are of an evaluation split."""
        return self.real.provenance()

    def leave_out(self, records: Container[tuple[str, str]]) -> None:
        """Leave photographs, named by source and key, out of the prediction that was set up."""
        self.real.leave_out(records)

    def make_train_pairs(self) -> MixedPairs:
        """Give the pairs of both kinds."""
        real = self.real.train_pairs if self.real.has_train else None
        return MixedPairs(real, self.synthetic.train_pairs)

    def count_streams(self) -> tuple[int, int]:
        """Number of photograph pairs and of synthetic pairs."""
        num_synthetic = len(self.synthetic.train_pairs)
        return len(self.train_pairs) - num_synthetic, num_synthetic

    def val_dataloader(self) -> DataLoader[ImageTextBatch] | Sequence[DataLoader[ImageTextBatch]]:
        """Photographs with all their captions."""
        return self.real.val_dataloader()

    def test_dataloader(self) -> DataLoader[ImageTextBatch]:
        """Photographs with all their captions."""
        return self.real.test_dataloader()

    def predict_dataloader(self) -> DataLoader[ImageTextBatch]:
        """Photographs with all their captions, each once over all ranks."""
        return self.real.predict_dataloader()

    def on_before_batch_transfer(self, batch: ImageTextBatch, dataloader_idx: int) -> ImageTextBatch:
        """Count the bad photographs."""
        return self.real.on_before_batch_transfer(batch, dataloader_idx)
