"""Compilation of trained components by ``torch.compile``."""

from torch import nn

from synth2_lightning.training.sharding import find_blocks


def compile_blocks(part: nn.Module) -> None:
    """Compile the repeated blocks of a component in place, or its ``forward`` if it has none; weights keep their names.

    Blocks of the same shapes share one graph, so that compilation takes no longer for more of them. With the second
    length of captions, torch compiles once more, for any length.

    Args:
        part: Resampler, decoder or the like.

    Example:
        >>> part = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> compile_blocks(part)
        >>> list(part.state_dict())
        ['0.weight', '0.bias', '1.weight', '1.bias']
    """
    for block in find_blocks(part) or [part]:
        block.compile()
