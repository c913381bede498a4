"""An exponential moving average of the trained weights (Polyak and Juditsky, 1992)."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from synth2_lightning.callbacks.sharded_weights import refuse_flat_weights, spread_like

_CURRENT = "current_model_state"  # as Lightning's own callback calls it, whose checkpoints can be gone on from


class WeightAveragingCallback(Callback):
    """Validates and saves a moving average of the trained weights, and leaves it in the module when training ends.

    Unlike Lightning's ``EMAWeightAveraging`` it copies trained weights only, no frozen part, and each as it lies on its
    process: so it works under DDP, which that callback's copy of the whole module breaks, and under FSDP2.
    Buffers are not averaged.

    Args:
        decay: Share of the old average in the new one, from 0 to below 1.
        start_step: Optimisation step up to which the average follows the weights.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> WeightAveragingCallback(decay=0.99).start_step
        0
    """

    def __init__(self, decay: float = 0.999, start_step: int = 0) -> None:
        if not 0 <= decay < 1 or start_step < 0:
            raise ValueError(
                f"WeightAveragingCallback was given decay={decay} and start_step={start_step}; expected a decay from 0 "
                "to below 1, and a step that is not below 0."
            )
        self.decay = decay
        self.start_step = start_step
        self._update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._averages: dict[str, Tensor] | None = None
        self._resumed: dict[str, Tensor] | None = None
        self._num_seen = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the last run.

        Raises:
            ValueError: Under FSDP1 and DeepSpeed.
        """
        refuse_flat_weights(trainer.strategy, "WeightAveragingCallback")
        self._averages = self._resumed = None

    @torch.no_grad()
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the weights; where a run goes on, the module holds the average, and gets its weights back."""
        weights = _trained(pl_module)
        self._averages = {name: weight.clone() for name, weight in weights.items()}
        self._num_seen = trainer.global_step
        for name, whole in (self._resumed or {}).items():
            if name in weights:
                weights[name].copy_(spread_like(whole, weights[name]))
        self._resumed = None

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the weights after an optimisation step, of which there is not one in every batch."""
        if trainer.global_step == self._num_seen:
            return
        self._num_seen = trainer.global_step
        averages, weights = self._pairs(pl_module)
        if trainer.global_step <= self.start_step + 1:
            for average, weight in zip(averages, weights, strict=True):
                average.copy_(weight)
        else:
            self._update(averages, weights, 0)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the module."""
        self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the weights back."""
        self._swap(pl_module)

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the module."""
        for average, weight in zip(*self._pairs(pl_module), strict=True):
            weight.copy_(average)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as the model, and the weights beside it for a run that goes on."""
        if self._averages is None:
            return
        checkpoint[_CURRENT] = {name: _whole(weight) for name, weight in _trained(pl_module).items()}
        averages = {name: _whole(average) for name, average in self._averages.items()}
        first = {id(weight): name for name, weight in pl_module.named_parameters()}
        # A weight that has two names, such as tied embeddings, is its average under both.
        checkpoint["state_dict"] |= {
            name: averages[first[id(weight)]]
            for name, weight in pl_module.named_parameters(remove_duplicate=False)
            if first[id(weight)] in averages
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the weights until training starts."""
        self._resumed = checkpoint.get(_CURRENT)

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule) -> None:
        if self._averages is None:
            return
        for average, weight in zip(*self._pairs(pl_module), strict=True):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    def _pairs(self, pl_module: LightningModule) -> tuple[list[Tensor], list[Tensor]]:
        assert self._averages is not None, "on_train_start makes them"
        weights = _trained(pl_module)
        return list(self._averages.values()), [weights[name] for name in self._averages]


def _trained(pl_module: LightningModule) -> dict[str, Tensor]:
    for module in pl_module.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # FSDP2 leaves some of them whole after a validation
    return {name: weight.detach() for name, weight in pl_module.named_parameters() if weight.requires_grad}


def _whole(weight: Tensor) -> Tensor:
    return weight.full_tensor().cpu() if isinstance(weight, DTensor) else weight
