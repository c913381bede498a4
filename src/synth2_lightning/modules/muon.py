"""Muon for processors that do not compute in bfloat16."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any
from unittest import mock

import timm.optim.muon
import torch

_ABLE = ("avx512_bf16", "amx_bf16", "bf16")


class Muon(timm.optim.Muon):  # type: ignore[misc]
    """timm's Muon (Jordan et al., 2024), which makes updates orthogonal in float32 where bfloat16 is emulated.

    timm computes that in bfloat16 everywhere, and processors without instructions for it spend most of a training step
    on it then. On all other devices nothing changes.

    The arguments are those of ``timm.optim.Muon``.

    Example:
        >>> weight = torch.nn.Parameter(torch.eye(2))
        >>> optimizer = Muon([weight], lr=0.1, adjust_lr_fn=None, ns_coefficients="polar_express")
        >>> weight.grad = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> _ = optimizer.step()
        >>> bool((weight < torch.eye(2)).diagonal().all())
        True
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step."""
        with self._precision():
            return super().step(closure)

    def _precision(self) -> AbstractContextManager[Any]:
        on_processor = all(p.device.type == "cpu" for group in self.param_groups for p in group["params"])
        capabilities = torch.cpu.get_capabilities()
        if not on_processor or any(capabilities.get(name, False) for name in _ABLE):
            return nullcontext()
        # timm passes no precision on to the function that has an argument for it.
        orthogonalize = partial(timm.optim.muon.zeropower_via_newtonschulz, dtype=torch.float32)
        return mock.patch.object(timm.optim.muon, "zeropower_via_newtonschulz", orthogonalize)
