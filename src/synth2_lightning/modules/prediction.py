"""Base class of modules for ``synth2 predict``."""

from typing import TypeVar

from lightning.pytorch import Callback, LightningModule

from synth2_lightning.modules.loading import load_components
from synth2_lightning.training.precision import check_precision
from synth2_lightning.training.safeguards import add_safeguards

Batch = TypeVar("Batch")


class PredictionModule(LightningModule):
    """LightningModule without training, whose predictions a callback writes."""

    def configure_callbacks(self) -> list[Callback]:
        """Run before a stage: adds the callbacks of :func:`~synth2_lightning.training.safeguards.add_safeguards`."""
        add_safeguards(self.trainer)
        return []

    def setup(self, stage: str) -> None:
        """Run before a stage: checks the precision."""
        check_precision(self)

    def configure_model(self) -> None:
        """Load the weights of all components."""
        load_components(self)

    def expect(self, batch: object, kind: type[Batch], datamodule: str) -> Batch:
        """Return the batch.

        Args:
            batch: Batch of any kind.
            kind: Class that it must have.
            datamodule: Datamodule with such batches, for the message.

        Raises:
            TypeError: If the batch is of another class.
        """
        if not isinstance(batch, kind):
            raise TypeError(
                f"{type(self).__name__} got {type(batch).__name__}; expected {kind.__name__}. Use a {datamodule}."
            )
        return batch
