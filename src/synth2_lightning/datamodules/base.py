"""Base classes of the training datamodules: samplers, data loaders and their state for resuming."""

from abc import ABC, abstractmethod
from typing import Any, Generic

import torch
from lightning.pytorch import LightningDataModule

from synth2_lightning.datamodules.loader import ResumableDataLoader, ignore_external_sigterm
from synth2_lightning.datamodules.mirroring import MirroredPairs, Mirroring
from synth2_lightning.datamodules.pairs import Batch, BatchDataset
from synth2_lightning.datamodules.sampling import StratifiedBatchSampler
from synth2_lightning.io.recorded_specs import Component
from synth2_lightning.types import ImageTextBatch


class ResumableDataModule(Component, LightningDataModule, ABC, Generic[Batch]):
    """Datamodule whose training resumes at any step.

    Subclasses define the training pairs, in strata such as real and synthetic ones, and the number of pairs of each
    stratum per step. An epoch has as many full batches as the pairs of all ranks fill, at least one. Epochs continue
    one another: each pair of a stratum is used once over all ranks before any is used again.

    Args:
        batch_size: Pairs per step and rank.
        num_workers: Number of data loader worker processes per rank.
        seed: Seed of the order of the training pairs.

    Raises:
        ValueError: If the batch size is below 1, or the seed is negative.
    """

    def __init__(self, batch_size: int, num_workers: int, seed: int) -> None:
        super().__init__()
        # With more ranks than images to predict, some ranks have no batch; that is not an error. Set here, because
        # Lightning's __init__ overwrites a class attribute.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        if batch_size < 1:
            raise ValueError(f"{type(self).__name__} got batch_size={batch_size}; expected 1 or more pairs.")
        if seed < 0:
            raise ValueError(f"{type(self).__name__} got seed={seed}; expected 0 or more.")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._sampler: StratifiedBatchSampler | None = None
        self._resumed: dict[str, Any] | None = None
        self._train_pairs: BatchDataset[Batch] | None = None
        self._fingerprint: dict[str, int | str] | None = None

    @abstractmethod
    def make_train_pairs(self) -> BatchDataset[Batch]:
        """Return the training pairs, ordered by stratum."""

    def count_train_pairs(self) -> tuple[int, ...]:
        """Return the number of training pairs of each stratum, without further variants."""
        return (len(self.train_pairs) // self.train_pairs.num_variants,)

    def count_variants(self) -> tuple[int, ...]:
        """Return the number of variants of the pairs of each stratum."""
        return (self.train_pairs.num_variants,)

    def count_pairs(self, step: int) -> tuple[int, ...]:
        """Return the number of pairs of each stratum in the batch of one rank and step."""
        return (self.batch_size,)

    def fingerprint(self) -> dict[str, int | str]:
        """Return number and checksum of the training pairs, which a resumed run compares; after ``setup("fit")``."""
        if self._fingerprint is None:
            num_pairs = sum(self.count_train_pairs())
            self._fingerprint = {"num_pairs": num_pairs, "checksum": self.train_pairs.fingerprint()}
        return self._fingerprint

    def setup(self, stage: str) -> None:
        """Reset training to the first step; a checkpoint is loaded later."""
        if stage == "fit":
            self._fingerprint = None
            self._train_pairs = None
            self._sampler = None
            self._resumed = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the sampler.

        Lightning also saves the state of the data loader, but does not restore it if a learning rate schedule has
        requested the number of steps per epoch before.
        """
        return {} if self._sampler is None else self._sampler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the sampler, also of one that is created later."""
        self._resumed = state_dict
        if self._sampler is not None:
            self._sampler.load_state_dict(state_dict)

    def train_dataloader(self) -> ResumableDataLoader[Batch]:
        """Return a data loader of one epoch of shuffled pairs; all epochs use one sampler."""
        # The sampler keeps its state when Lightning reloads data loaders (reload_dataloaders_every_n_epochs).
        if self._sampler is None:
            self._sampler = self._make_sampler()
            if self._resumed is not None:
                self._sampler.load_state_dict(self._resumed)
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        return ResumableDataLoader(
            dataset=self.train_pairs, sampler=self._sampler, device=device, **self.loader_settings()
        )

    @property
    def train_pairs(self) -> BatchDataset[Batch]:
        """Training pairs; available after ``setup("fit")``."""
        if self._train_pairs is None:
            self._train_pairs = self.make_train_pairs()
        return self._train_pairs

    @property
    def rank(self) -> int:
        """Global rank of this process; 0 without a trainer."""
        return self.trainer.global_rank if self.trainer else 0

    @property
    def world_size(self) -> int:
        """Number of ranks; 1 without a trainer."""
        return self.trainer.world_size if self.trainer else 1

    def _make_sampler(self) -> StratifiedBatchSampler:
        sizes = self.count_train_pairs()
        return StratifiedBatchSampler(
            sizes=sizes,
            counts=self.count_pairs,
            num_steps=max(1, sum(sizes) // (self.batch_size * self.world_size)),
            seed=self.seed,
            rank=self.rank,
            world_size=self.world_size,
            num_variants=self.count_variants(),
        )

    def loader_settings(self) -> dict[str, Any]:
        """Return the arguments of the data loaders, besides dataset and sampler."""
        # Keyword arguments only: Lightning re-creates loaders for prediction from their keyword arguments.
        return {
            "batch_size": None,  # the samplers yield full batches
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "worker_init_fn": ignore_external_sigterm,
            "pin_memory": torch.cuda.is_available(),
        }


class ImageTextDataModule(ResumableDataModule[ImageTextBatch]):
    """Datamodule of images and texts whose training resumes at any step.

    Args:
        batch_size: Pairs per step and rank.
        num_workers: Number of data loader worker processes per rank.
        seed: Seed of the order of the training pairs.
        mirroring: Mirrors each training image with probability 1/2 in each pass over the pairs; ``None`` mirrors none.

    Raises:
        ValueError: If the batch size is below 1, or the seed is negative.
    """

    def __init__(self, batch_size: int, num_workers: int, seed: int, mirroring: Mirroring | None = None) -> None:
        super().__init__(batch_size, num_workers, seed)
        self.mirroring = mirroring

    @property
    def train_pairs(self) -> BatchDataset:
        """Training pairs, in both variants if they are mirrored; available after ``setup("fit")``."""
        if self._train_pairs is None and self.mirroring is not None:
            self._train_pairs = MirroredPairs(self.make_train_pairs(), self.mirroring)
        return super().train_pairs

    def training_captions(self) -> list[tuple[str, ...]]:
        """Return all captions of each training image, real and synthetic; after ``setup("fit")``."""
        return self.train_pairs.image_captions(range(len(self.train_pairs)))
