"""Consistency between ranks: losses of the global batch, and checkpoints."""

from pathlib import Path

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Tensor

from synth2_lightning.io.checkpoint_files import checksum
from synth2_lightning.types import TokenLoss


def mean_over_ranks(losses: TokenLoss) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean loss per target token over all ranks, so that gradients do not depend on the world size.

    DDP and FSDP average gradients over ranks. An average of the ranks' means would differ from the mean over all
    tokens, because ranks have different numbers of tokens. So each rank's sum is scaled by the world size and divided
    by the global number of tokens. A rank without target tokens contributes 0 and still joins the all-reduce.

    Returns:
        The loss to differentiate, whose average over ranks is the mean; the mean itself (nats) and the number of target
        tokens, both equal on all ranks.

    Raises:
        ValueError: On every rank, if no rank has a target token.

    Example:
        >>> [float(one) for one in mean_over_ranks(TokenLoss(torch.tensor([2.0, 4.0]), torch.tensor([1, 2])))]
        [2.0, 2.0, 3.0]
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        mean = losses.mean()
        return mean, mean.detach(), losses.counts.sum()
    total = losses.sums.sum()
    over_ranks = torch.stack([total.detach().float(), losses.counts.sum().float()])
    dist.all_reduce(over_ranks)
    if not int(over_ranks[1]):
        losses.mean()  # raises the ValueError
    return total * (dist.get_world_size() / over_ranks[1]), over_ranks[0] / over_ranks[1], over_ranks[1]


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
