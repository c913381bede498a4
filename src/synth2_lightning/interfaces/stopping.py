"""Stopping all ranks of a training run in the same step."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class StopsTogether(Protocol):
    """Module that combines the stop requests of all ranks in the collective of its training step.

    Attributes:
        is_stop_requested: Whether this rank asks all ranks to stop; a callback sets it.
        is_stop_agreed: Whether any rank asked; it becomes true on all ranks in the same batch, at most two later.
    """

    is_stop_requested: bool

    @property
    def is_stop_agreed(self) -> bool:
        """Whether any rank asked."""
