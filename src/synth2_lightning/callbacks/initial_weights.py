"""A run that begins where another one ended: fine-tuning, and new heads on a trained captioner."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from synth2_lightning.callbacks.sharded_weights import refuse_flat_weights, spread_like
from synth2_lightning.locations import find_checkpoint, resolve
from synth2_lightning.weight_files import read_checkpoint, read_safetensors

_EXPORTED_WEIGHTS = "model.safetensors"


class InitialWeightsCallback(Callback):
    """Gives trained parts the weights that an earlier run left, before the first step.

    Steps, optimiser and schedule begin anew, which ``--ckpt_path`` would not: that one goes on with the same run, and
    where it is given nothing is done here. Weights go by their names. What only this run has, such as a new head, keeps
    its own beginning; what only the other had is left out; both are told.

    Args:
        weights: Location of a checkpoint, of a run (its best checkpoint, or else its last), or of a folder that
            ``synth2 export`` wrote.

    Example:
        >>> InitialWeightsCallback("runs/version_0").weights
        'runs/version_0'
    """

    def __init__(self, weights: str) -> None:
        self.weights = weights

    @torch.no_grad()
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the weights over.

        Raises:
            FileNotFoundError: If there are none.
            ValueError: If they are damaged, of another shape, or none of them has a place here; under FSDP1 and
                DeepSpeed.
        """
        if trainer.ckpt_path is not None:
            return
        refuse_flat_weights(trainer.strategy, "InitialWeightsCallback")
        given = read_weights(self.weights)
        trained = {name: weight for name, weight in pl_module.named_parameters() if weight.requires_grad}
        shared = trained.keys() & given.keys()
        if not shared:
            raise ValueError(
                f"None of the {len(trained)} trained weights of {type(pl_module).__name__} ({_first(trained)}) is "
                f"among the {len(given)} of {self.weights!r} ({_first(given)}); expected a run of the same parts."
            )
        other = {name: (given[name].shape, trained[name].shape) for name in sorted(shared)}
        other = {name: shapes for name, shapes in other.items() if shapes[0] != shapes[1]}
        if other:
            name, (there, here) = next(iter(other.items()))
            raise ValueError(
                f"{len(other)} of {len(shared)} weights of {self.weights!r} are of another shape, such as {name}: "
                f"{tuple(there)} there, {tuple(here)} here. Expected the same; give the parts the settings that the "
                "other run had (config.yaml in its folder), its vocabulary too."
            )
        for name in shared:
            trained[name].copy_(spread_like(given[name], trained[name]))
        left = sorted(given.keys() - pl_module.state_dict().keys() - dict(pl_module.named_parameters()).keys())
        new = sorted(trained.keys() - shared)
        rank_zero_info(
            f"{len(shared)} trained weights begin as {self.weights!r} left them; {len(new)} begin anew "
            f"({_first(new) or 'none'}), {len(left)} have no place here ({_first(left) or 'none'})."
        )


def read_weights(location: str | Path) -> dict[str, Tensor]:
    """Read the weights of a checkpoint, of a run, or of an exported captioner; no code in them is ever run.

    Args:
        location: As for :class:`InitialWeightsCallback`.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If they are damaged, or of something else.
    """
    path = resolve(location, "run or checkpoint")
    exported = path / _EXPORTED_WEIGHTS
    path = exported if exported.is_file() else find_checkpoint(path)
    weights = read_safetensors(path) if path.suffix == ".safetensors" else read_checkpoint(path).get("state_dict")
    if not isinstance(weights, dict):
        raise ValueError(
            f"{path} holds no weights; expected a checkpoint of `synth2 fit`, or the safetensors of `synth2 export`."
        )
    return weights


def _first(names: Mapping[str, Any] | list[str]) -> str:
    return ", ".join(list(names)[:3])
