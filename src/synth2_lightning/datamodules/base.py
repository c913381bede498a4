"""What all datamodules share: where this process stands among the ranks, and how its loaders are made."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from synth2_lightning.datamodules.loader import ResumableDataLoader, outlive_sigterm
from synth2_lightning.datamodules.pairs import BatchDataset
from synth2_lightning.datamodules.sampling import EvaluationSampler, StratifiedSampler
from synth2_lightning.types import ImageTextBatch


class ImageTextDataModule(LightningDataModule, ABC):
    """A datamodule whose batches are :class:`ImageTextBatch` and whose training can be resumed at any step.

    Subclasses say which pairs there are and how many of each kind a step takes. An epoch is as many whole batches as
    the pairs fill over all ranks, at least one. The next epoch goes on where the last one ended: every pair of a kind
    comes once over all ranks before any of them comes again.

    Args:
        batch_size: Pairs per step and rank.
        num_workers: Processes that read ahead, per rank.
        seed: Order of the training pairs.

    Raises:
        ValueError: If the batch size is below one.
    """

    def __init__(self, batch_size: int, num_workers: int, seed: int) -> None:
        super().__init__()
        # More ranks than pictures to predict: those without one have nothing to do, and that is no error. (Not in the
        # class: Lightning's own __init__ says otherwise.)
        self.allow_zero_length_dataloader_with_multiple_devices = True
        if batch_size < 1:
            raise ValueError(f"{type(self).__name__} got batch_size={batch_size}; expected 1 or more pairs.")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._sampler: StratifiedSampler | None = None
        self._resumed: dict[str, Any] | None = None
        self._train_pairs: BatchDataset | None = None
        self._fingerprint: dict[str, Any] | None = None

    @abstractmethod
    def make_train_pairs(self) -> BatchDataset:
        """Give the training pairs; where there are several kinds, one kind after the other."""

    def count_streams(self) -> tuple[int, ...]:
        """Number of training pairs of each kind."""
        return (len(self.train_pairs),)

    def count_pairs(self, step: int) -> tuple[int, ...]:
        """Number of pairs of each kind that one rank takes in a step."""
        return (self.batch_size,)

    def fingerprint(self) -> dict[str, Any]:
        """Return number and checksum of the training pairs, after ``setup("fit")``: a resumed run compares them."""
        if self._fingerprint is None:
            self._fingerprint = {"num_pairs": len(self.train_pairs), "checksum": self.train_pairs.fingerprint()}
        return self._fingerprint

    def setup(self, stage: str) -> None:
        """Begin a run: its training starts with the first step, unless a checkpoint says otherwise."""
        if stage == "fit":
            self._fingerprint = None
            self._sampler = None
            self._resumed = None

    def state_dict(self) -> dict[str, Any]:
        """How far training is.

        Lightning saves that of the loader, too, but restores it only where no learning rate schedule has asked for the
        number of steps in an epoch before.
        """
        return {} if self._sampler is None else self._sampler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there, with the loader that is made next or was made already."""
        self._resumed = state_dict
        if self._sampler is not None:
            self._sampler.load_state_dict(state_dict)

    def train_dataloader(self) -> ResumableDataLoader:
        """Endless shuffled pairs, an epoch at a time."""
        # Lightning may ask again within one run (reload_dataloaders_every_n_epochs): the sampler knows how far it is.
        if self._sampler is None:
            self._sampler = self._make_sampler()
            if self._resumed is not None:
                self._sampler.load_state_dict(self._resumed)
        return ResumableDataLoader(dataset=self.train_pairs, sampler=self._sampler, **self._loader_settings())

    @property
    def train_pairs(self) -> BatchDataset:
        """The training pairs; after ``setup("fit")``."""
        if self._train_pairs is None:
            self._train_pairs = self.make_train_pairs()
        return self._train_pairs

    @property
    def rank(self) -> int:
        """This process' number among all that train together."""
        return self.trainer.global_rank if self.trainer else 0

    @property
    def world_size(self) -> int:
        """Number of processes that train together."""
        return self.trainer.world_size if self.trainer else 1

    def make_evaluation_loader(self, dataset: BatchDataset, sampler: EvaluationSampler) -> DataLoader[ImageTextBatch]:
        """Make a loader that goes through a dataset once, in order."""
        return DataLoader(dataset=dataset, sampler=sampler, **self._loader_settings())

    def _make_sampler(self) -> StratifiedSampler:
        return StratifiedSampler(
            sizes=self.count_streams(),
            counts=self.count_pairs,
            num_steps=max(1, len(self.train_pairs) // (self.batch_size * self.world_size)),
            seed=self.seed,
            rank=self.rank,
            world_size=self.world_size,
        )

    def _loader_settings(self) -> dict[str, Any]:
        # By keyword all of it: Lightning makes loaders anew for predict, and knows arguments by name only.
        return {
            "batch_size": None,  # the samplers yield whole batches
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "worker_init_fn": outlive_sigterm,
            "pin_memory": torch.cuda.is_available(),
        }
