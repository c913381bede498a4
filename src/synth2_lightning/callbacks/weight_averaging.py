"""A moving average of the trained weights whose window grows with the run (Karras et al., arXiv 2312.02696)."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from synth2_lightning.callbacks.sharded_weights import check_not_flattened, distribute_like
from synth2_lightning.compat.lightning import attributes_of

_CURRENT = "current_model_state"  # same key as Lightning's own callback, whose checkpoints can be resumed from


class WeightAveragingCallback(Callback):
    """Validates and saves a moving average of the trained weights, and copies it into the module at the end.

    After step t the average is ``b * average + (1 - b) * weights`` with ``b = (1 - 1 / t) ** (1 / fraction - 1)``, the
    power function of EDM2 (equation 127, with ``fraction = 1 / (gamma + 2)``). So one setting suits runs of 500 and of
    500,000 steps, and their number need not be known in advance. A constant decay would average the same number of
    steps in all runs.

    Unlike Lightning's ``EMAWeightAveraging`` it copies trained weights only, each with its own sharding. So it works
    under FSDP2, and under DDP, where a copy of the whole module fails. Buffers are not averaged.

    Args:
        fraction: Mean age of the averaged weights, as a fraction of the steps taken so far: above 0, up to 0.5, which
            is the mean of all steps. The default is a relative standard deviation (EDM2's ``sigma_rel``) of 0.09.

    Raises:
        ValueError: If the fraction is out of range; when a stage starts, under FSDP1 and DeepSpeed, or if there are two
            of these callbacks.

    Example:
        >>> average = WeightAveragingCallback(fraction=0.1)
        >>> [round(average.decay(step), 4) for step in (1, 10, 1000)]
        [0.0, 0.3874, 0.991]
    """

    def __init__(self, fraction: float = 0.1) -> None:
        if not 0 < fraction <= 0.5:
            raise ValueError(
                f"WeightAveragingCallback got fraction={fraction}; expected the mean age of the averaged weights as a "
                "fraction of the steps, above 0 and up to 0.5."
            )
        self.fraction = fraction
        self._averages: dict[str, Tensor] | None = None
        self._resumed: dict[str, Tensor] | None = None
        self._num_steps = 0
        self._is_swapped = False

    def decay(self, step: int) -> float:
        """Return the weight of the old average in the new one after an optimization step, counted from 1."""
        return float((1 - 1 / step) ** (1 / self.fraction - 1))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Run before a stage: resets the averages."""
        check_not_flattened(trainer.strategy, "WeightAveragingCallback")
        others = [each for each in attributes_of(trainer).callbacks if isinstance(each, WeightAveragingCallback)]
        if len(others) > 1:  # each would swap its average in and out, and leave the other's in the module
            raise ValueError(
                f"The trainer has {len(others)} WeightAveragingCallbacks, of fractions "
                f"{[each.fraction for each in others]}; expected one. Remove one: the run file may have it already, "
                "without overlays/trainer/weight_averaging.yaml."
            )
        self._averages = self._resumed = None
        self._is_swapped = False

    @torch.no_grad()
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run before the first step: initializes the average with the module's weights; on resume, restores these."""
        weights = _trained(pl_module)
        self._averages = {name: weight.clone() for name, weight in weights.items()}
        self._num_steps = trainer.global_step
        for name, full in (self._resumed or {}).items():
            if name in weights:
                weights[name].copy_(distribute_like(full, weights[name]))
        self._resumed = None

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Run after each batch: updates the average, if the batch ended an optimization step."""
        if trainer.global_step == self._num_steps:
            return
        self._num_steps = trainer.global_step
        averages, weights = self._pairs(pl_module)
        get_ema_multi_avg_fn(self.decay(trainer.global_step))(averages, weights, 0)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the start of a validation: copies the average into the module."""
        self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the end of a validation: copies the weights back into the module."""
        self._swap(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Run at an error: copies the weights back, before a checkpoint is saved, if it ends a validation."""
        if self._is_swapped and trainer.validating:
            self._swap(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the end of training: copies the average into the module."""
        self._swap(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Run when a checkpoint is saved: saves the average as the model's weights, and the weights for resuming."""
        if self._averages is None:
            return
        in_module, kept = (
            {name: _full(weight) for name, weight in weights.items()}
            for weights in (_trained(pl_module), self._averages)
        )
        checkpoint[_CURRENT], averages = (kept, in_module) if self._is_swapped else (in_module, kept)
        first = {id(weight): name for name, weight in pl_module.named_parameters()}
        # A weight with two names, such as tied embeddings, is saved under both.
        checkpoint["state_dict"] |= {
            name: averages[first[id(weight)]]
            for name, weight in pl_module.named_parameters(remove_duplicate=False)
            if first[id(weight)] in averages
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Run when a checkpoint is loaded: stores the weights until training starts."""
        self._resumed = checkpoint.get(_CURRENT)

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule) -> None:
        if self._averages is None:
            return
        self._is_swapped = not self._is_swapped
        for average, weight in zip(*self._pairs(pl_module), strict=True):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    def _pairs(self, pl_module: LightningModule) -> tuple[list[Tensor], list[Tensor]]:
        assert self._averages is not None, "set by on_train_start"
        weights = _trained(pl_module)
        return list(self._averages.values()), [weights[name] for name in self._averages]


def _trained(pl_module: LightningModule) -> dict[str, Tensor]:
    for module in pl_module.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # FSDP2 leaves some weights gathered after a validation
    return {name: weight.detach() for name, weight in pl_module.named_parameters() if weight.requires_grad}


def _full(weight: Tensor) -> Tensor:
    return weight.full_tensor().cpu() if isinstance(weight, DTensor) else weight
