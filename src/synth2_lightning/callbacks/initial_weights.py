"""Initialization from the weights of another run, for fine-tuning and for new heads on a trained captioner."""

from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from synth2_lightning.callbacks.sharded_weights import check_not_flattened, distribute_like
from synth2_lightning.io.checkpoint_files import read_checkpoint
from synth2_lightning.io.locations import find_checkpoint, resolve
from synth2_lightning.io.messages import name_first
from synth2_lightning.io.safetensors import read_safetensors

_EXPORTED_WEIGHTS = "model.safetensors"


class InitialWeightsCallback(Callback):
    """Initializes the trained weights with those of an earlier run, before the first step.

    Step count, optimizer and schedule are new. With ``--ckpt_path``, which resumes a run, this callback has no effect.
    Weights are matched by name. Those of this run only, such as a new head's, keep their own initialization; those of
    the other run only are ignored. Both are logged.

    Args:
        weights: Location of a checkpoint, of a run (its best checkpoint, or else its last), or of a folder written by
            ``synth2 export``.

    Raises:
        FileNotFoundError: If there are no weights at this location.
        ValueError: If they are damaged, of another shape, or none of their names matches; under FSDP1 and DeepSpeed.

    Example:
        >>> InitialWeightsCallback("runs/version_0").weights
        'runs/version_0'
    """

    def __init__(self, weights: str) -> None:
        self.weights = weights

    @torch.no_grad()
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the start of a fit: copies the weights into the module."""
        if trainer.ckpt_path is not None:
            return
        check_not_flattened(trainer.strategy, "InitialWeightsCallback")
        given = read_weights(self.weights)
        trained: dict[str, Tensor] = {
            name: weight for name, weight in pl_module.named_parameters() if weight.requires_grad
        }
        saved = pl_module.state_dict()  # codebooks that are moving averages are buffers
        trained |= {name: buffer for name, buffer in pl_module.named_buffers() if name in saved}
        shared = trained.keys() & given.keys()
        if not shared:
            raise ValueError(
                f"None of the {len(trained)} trained weights of {type(pl_module).__name__} ({name_first(trained)}) is "
                f"among the {len(given)} of {self.weights!r} ({name_first(given)}); expected a run of the same "
                "components."
            )
        mismatched = [name for name in sorted(shared) if given[name].shape != trained[name].shape]
        if mismatched:
            name = mismatched[0]
            raise ValueError(
                f"{len(mismatched)} of {len(shared)} weights of {self.weights!r} have another shape, such as {name}: "
                f"{tuple(given[name].shape)} there, {tuple(trained[name].shape)} here. Expected the same shapes. Use "
                "the settings of the other run (config.yaml in its folder), including its vocabulary."
            )
        for name in sorted(shared):  # a shard is sent by a collective call, and each process has its own order of sets
            trained[name].copy_(distribute_like(given[name], trained[name]))
        ignored = sorted(given.keys() - pl_module.state_dict().keys() - dict(pl_module.named_parameters()).keys())
        new = sorted(trained.keys() - shared)
        rank_zero_info(
            f"{len(shared)} trained weights are initialized from {self.weights!r}; {len(new)} keep their own "
            f"initialization ({name_first(new) or 'none'}), {len(ignored)} are ignored "
            f"({name_first(ignored) or 'none'})."
        )


def read_weights(location: str | Path) -> dict[str, Tensor]:
    """Return the weights of a checkpoint, of a run, or of an exported captioner, without running code in them.

    Raises:
        FileNotFoundError: If there are no weights at this location.
        ValueError: If the file is damaged or contains no weights.
    """
    path = resolve(location, "run or checkpoint")
    exported = path / _EXPORTED_WEIGHTS
    path = exported if exported.is_file() else find_checkpoint(path)
    weights = read_safetensors(path) if path.suffix == ".safetensors" else read_checkpoint(path).get("state_dict")
    if not isinstance(weights, dict):
        raise ValueError(
            f"{path} contains no weights; expected a checkpoint of `synth2 fit`, or the safetensors of `synth2 export`."
        )
    return weights
