"""The precisions that modules support."""

from typing import Literal, get_args

from lightning.pytorch import LightningModule

SupportedPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""Precisions of the trainer. Lightning's others cast the whole module: frozen networks and codebooks too."""


def check_precision(module: LightningModule) -> None:
    """Raise on another precision of the module's trainer.

    Raises:
        ValueError: If it is not one of :data:`SupportedPrecision`.
    """
    precision, supported = module.trainer.precision, get_args(SupportedPrecision)
    if precision not in supported:
        raise ValueError(
            f"{type(module).__name__} got a trainer with precision={precision!r}, which would cast frozen networks and "
            f"codebooks; expected one of {', '.join(map(repr, supported))}. Set the trainer's precision to one of them."
        )
