"""Consistency of checkpoints between ranks."""

from pathlib import Path

import torch.distributed as dist
from lightning.pytorch import Trainer

from synth2_lightning.io.checkpoint_files import checksum


def check_same_checkpoint(trainer: Trainer) -> None:
    """Raise on ranks that would load different checkpoints, since each rank finds and reads its own; call on all ranks.

    Raises:
        ValueError: On all ranks, if the checkpoints of two ranks have different content.
    """
    if trainer.world_size == 1 or not dist.is_initialized():
        return
    path = trainer.ckpt_path
    found = [("", "")] * trainer.world_size
    dist.all_gather_object(found, ("none", "") if path is None else _name_and_checksum(str(path)))
    if len({content for _, content in found}) > 1:
        names = ", ".join(f"{name} ({content})" if content else name for name, content in found)
        raise ValueError(
            f"The processes would resume from different checkpoints, by rank: {names}; expected the same content "
            "on each. Keep the run's folder on a file system shared by all machines, or copy its checkpoints to each, "
            "and check that they are readable there."
        )


def _name_and_checksum(path: str) -> tuple[str, str]:
    if "://" in path:
        return path, path
    found = Path(path).resolve()
    try:
        return found.name, f"checksum {checksum(found)}"
    except OSError as error:  # not raised: the other ranks wait in all_gather_object
        return found.name, f"cannot be read: {error.strerror}"
