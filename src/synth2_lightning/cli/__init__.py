"""The ``synth2`` command."""

from synth2_lightning.cli.main import main

__all__ = ["main"]
