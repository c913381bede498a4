"""Muon, computed in float32 on processors that emulate bfloat16."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from timm.optim.adamw import adamw
from timm.optim.muon import get_lr_scale, zeropower_via_newtonschulz
from torch import Tensor
from torch.optim import Optimizer

from synth2_lightning.io.precision import computes_bfloat16

# Newton-Schulz steps, one triple each: https://leloykun.github.io/ponder/muon-opt-coeffs/
_COEFFICIENTS = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]


class Muon(Optimizer):
    """Muon for weights of hidden layers, AdamW for all other parameters.

    Muon is that of Jordan et al. (2024, https://kellerjordan.github.io/posts/muon/), without Nesterov momentum.

    The updates equal those of ``timm.optim.Muon`` with its default algorithm, except on processors without bfloat16
    instructions: timm and ``torch.optim.Muon`` always orthogonalize in bfloat16, and emulating it takes most of a
    training step there. This class computes in float32 on such processors.

    A group with ``use_muon=False`` is updated by AdamW, as :func:`~synth2_lightning.training.optimizers.decay_groups`
    sets it for embeddings, positions and output layers: Jordan et al. recommend it there, because these
    are no maps between hidden states. So is a parameter whose first or second dimension is 1, or that, flattened to a
    matrix, has fewer than 4 rows or columns or an aspect ratio above 128.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate. Updates of matrices are scaled to the size of AdamW's (arXiv 2502.16982), so that it is one
            rate for both.
        weight_decay: Decoupled weight decay.
        momentum: Decay rate of the gradient's running mean, for matrices.
        betas: Decay rates of AdamW.
        eps: Added to denominators.

    Example:
        >>> weight = torch.nn.Parameter(torch.eye(4))
        >>> optimizer = Muon([weight], lr=0.1)
        >>> weight.grad = torch.eye(4)
        >>> optimizer.step()
        >>> bool((weight.diagonal() < 1).all())
        True
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-7,
    ) -> None:
        settings = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__(params, {**settings, "use_muon": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one optimization step, and return what the closure returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            matrices = list(filter(_is_matrix, weights)) if group["use_muon"] else []
            for weight in matrices:
                self._update_matrix(weight, group)
            updated = set(matrices)
            self._update_others([weight for weight in weights if weight not in updated], group)
        return loss

    def _update_matrix(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        mean = state["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
        update = zeropower_via_newtonschulz(
            mean.reshape(len(mean), -1),
            steps=len(_COEFFICIENTS),
            coefficients=_COEFFICIENTS,
            eps=group["eps"],
            dtype=torch.bfloat16 if computes_bfloat16(weight.device) else torch.float32,
        )
        weight.add_(update.reshape(weight.shape), alpha=-group["lr"] * get_lr_scale(update.shape))

    def _update_others(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[weight] for weight in weights]
        for weight, state in zip(weights, states, strict=True):
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        adamw(
            weights,
            [weight.grad for weight in weights],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            caution=False,
            maximize=False,
            max_lr=None,
        )


def _is_matrix(weight: Tensor) -> bool:
    if weight.ndim < 2 or 1 in weight.shape[:2]:
        return False
    rows, columns = len(weight), weight.numel() // len(weight)
    return min(rows, columns) >= 4 and max(rows, columns) <= 128 * min(rows, columns)
