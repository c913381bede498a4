"""Folders that trained components are written to at the end of a fit."""

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from synth2_lightning.callbacks.run_folder import run_folder
from synth2_lightning.io.paths import expand_home


def export_folder(trainer: Trainer, export_to: str | None, name: str) -> Path:
    """Return the folder of an export, and log it; all ranks must call this function together.

    Args:
        trainer: Trainer at the end of the fit.
        export_to: The folder; None is the folder ``name`` in the run's folder.
        name: Name of the component.
    """
    given = run_folder(trainer) / name if export_to is None else expand_home(export_to)
    folder = Path(trainer.strategy.broadcast(str(given)))
    rank_zero_info(f"Writing the trained {name.replace('_', ' ')} to {folder}")
    return folder
