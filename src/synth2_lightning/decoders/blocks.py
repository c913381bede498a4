"""Finding and wrapping the blocks of a language model of transformers."""

from typing import Any

from torch import nn


def find_lm_blocks(model: nn.Module, num_blocks: int) -> nn.ModuleList:
    """Find the list of a language model's blocks, whose attribute has another name in every architecture.

    Args:
        model: The language model.
        num_blocks: Number of blocks according to its configuration.

    Raises:
        ValueError: If no list, or more than one, has that length.

    Example:
        >>> find_lm_blocks(nn.Sequential(nn.ModuleList([nn.Identity(), nn.Identity()])), 2)
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
            f"{type(model).__name__} has {len(found)} lists of {num_blocks} modules ({', '.join(found) or 'none'}); "
            "expected exactly one, the list of its blocks, as in decoder-only models of transformers. Use "
            "PrefixDecoder without checkpoint_activations, which does not need the blocks."
        )
    return next(iter(found.values()))


class BlockWrapper(nn.Module):
    """Replaces a block; attributes that it lacks are those of the block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.decoder_layer = block

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the wrapper, or else of the block."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("decoder_layer"), name)
