"""Folders that trained components are written to at the end of a fit."""

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from synth2_lightning.io.paths import expand_home


def export_folder(trainer: Trainer, export_to: str | None, name: str) -> Path:
    """Return the folder of an export, and log it; all ranks must call this function together.

    Args:
        trainer: Trainer at the end of the fit.
        export_to: The folder; None is the folder ``name`` in the log folder.
        name: Name of the component.
    """
    log_folder = Path(trainer.log_dir or trainer.default_root_dir)  # log_dir is collective
    folder = log_folder / name if export_to is None else expand_home(export_to)
    rank_zero_info(f"Writing the trained {name.replace('_', ' ')} to {folder}")
    return folder
