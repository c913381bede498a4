"""``synth2 consolidate``."""

from pathlib import Path

from synth2_lightning.io.console import MessageConsole


def consolidate(checkpoint: Path, *, out: Path) -> None:
    """Merge a sharded checkpoint into one file.

    Args:
        checkpoint: A sharded checkpoint, which is a folder.
        out: NAME.safetensors for the weights, NAME.ckpt for a complete checkpoint.

    Example:
        synth2 consolidate runs/version_0/checkpoints/last.ckpt --out model.safetensors
    """
    from synth2_lightning.export.sharded import consolidate as merge

    num_tensors = merge(checkpoint, out)
    MessageConsole().print(f"{num_tensors} trained tensors are in {out}", soft_wrap=True)
