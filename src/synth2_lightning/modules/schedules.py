"""Learning-rate schedules."""

import logging
import math

from lightning.pytorch.utilities import rank_zero_only
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

_logger = logging.getLogger(__name__)


# SequentialLR of LinearLR and CosineAnnealingLR differs: it has one final rate for all parameter groups instead of a
# fraction of each, rises again after the last step, and rounds differently.
class WarmupCosineSchedule(LambdaLR):
    """Linear warm-up, then half a cosine down to a fraction of the peak (Loshchilov and Hutter, arXiv 1608.03983).

    Args:
        optimizer: Optimizer whose learning rate is the peak.
        num_steps: Optimization steps of the run; set by the module, not in a run file.
        warmup_steps: Optimization steps of the warm-up; a run that is not longer is warned of.
        final_fraction: Final learning rate as a fraction of the peak, 0 to 1.

    Raises:
        ValueError: If ``final_fraction`` is outside 0 to 1, or ``warmup_steps`` is negative.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> schedule = WarmupCosineSchedule(optimizer, num_steps=100, warmup_steps=10)
        >>> schedule.get_last_lr()
        [0.1]
    """

    def __init__(
        self, optimizer: Optimizer, num_steps: int, warmup_steps: int = 100, final_fraction: float = 0.05
    ) -> None:
        if not 0 <= final_fraction <= 1:
            raise ValueError(f"WarmupCosineSchedule.final_fraction is {final_fraction}; expected 0 to 1.")
        if warmup_steps < 0:
            raise ValueError(f"WarmupCosineSchedule.warmup_steps is {warmup_steps}; expected 0 or more.")

        if warmup_steps and warmup_steps >= num_steps:
            _warn_of_warmup(warmup_steps, num_steps)

        def fraction(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / warmup_steps
            progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
            return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))

        super().__init__(optimizer, fraction)


@rank_zero_only
def _warn_of_warmup(warmup_steps: int, num_steps: int) -> None:
    _logger.warning(
        "The learning rate rises for warmup_steps=%d, but the run has %d optimization steps, so it ends at %.0f %% of "
        "the peak and never falls; expected fewer steps of warm-up. Lower lr_scheduler.init_args.warmup_steps.",
        warmup_steps,
        num_steps,
        100 * num_steps / warmup_steps,
    )
