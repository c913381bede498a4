"""Engines that process a caption set: this process, or Ray Data."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synth2_lightning.reports.engine import CaptionEngine


@contextmanager
def open_engine(address: str | None) -> Iterator["CaptionEngine"]:
    """Yield an engine on the Ray cluster at an address, ``"local"`` for this machine; in this process if ``None``.

    Raises:
        OSError: If Ray is not installed or cannot be reached.
    """
    if address is None:
        from synth2_lightning.reports.engine import SingleProcessEngine

        yield SingleProcessEngine()
        return
    from synth2_lightning.reports.ray import connect

    with connect(address) as engine:
        yield engine
