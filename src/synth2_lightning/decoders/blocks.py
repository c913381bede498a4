"""The blocks of any language model of transformers, and what may be wrapped around them."""

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def find_blocks(model: nn.Module, num_blocks: int) -> nn.ModuleList:
    """Find the list of a language model's blocks, whatever its class calls it.

    Args:
        model: The language model.
        num_blocks: What its configuration says.

    Raises:
        ValueError: If no list, or more than one, has that length.

    Example:
        >>> find_blocks(nn.Sequential(nn.ModuleList([nn.Identity(), nn.Identity()])), 2)
        ModuleList(
          (0-1): 2 x Identity()
        )
    """
    found = {
        name: part
        for name, part in model.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) == num_blocks
    }
    if len(found) != 1:
        raise ValueError(
            f"{type(model).__name__} has {len(found)} lists of {num_blocks} modules ({', '.join(found) or 'none'}), so "
            "its blocks cannot be told; expected one list, as decoder-only models of transformers have it. Use "
            "PrefixDecoder without checkpoint_activations, which needs no blocks."
        )
    return next(iter(found.values()))


class BlockWrapper(nn.Module):
    """Stands in a block's place and lets through what others ask the block for."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def __getattr__(self, name: str) -> Any:
        """Look the attribute up here, then in the block."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)


class CheckpointedBlock(BlockWrapper):
    """Computes its block again in the backward pass rather than keep what it computed.

    Transformers' own checkpointing rests in ``eval()``, which is where a frozen language model is kept.
    """

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the block."""
        if not torch.is_grad_enabled():
            return self.block(hidden_states, *args, **kwargs)
        return checkpoint(self.block, hidden_states, *args, use_reentrant=False, **kwargs)
