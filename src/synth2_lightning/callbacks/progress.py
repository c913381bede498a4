"""Progress bars for terminals and notebooks."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from rich.progress import ProgressColumn, Task
from rich.table import Column
from rich.text import Text

from synth2_lightning.compat.lightning import EpochProgressBar
from synth2_lightning.io.console import shows_progress_bars


class TerminalProgressBar(EpochProgressBar):
    """Lightning's progress bar, in terminals and notebooks only.

    In a file it would leave its last state, and metrics would be copied from the device for it after each step.
    :class:`~synth2_lightning.callbacks.progress_log.ProgressLogCallback` logs lines instead.

    The arguments are those of :class:`lightning.pytorch.callbacks.RichProgressBar`.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Run before a stage: disables the bar without a terminal."""
        super().setup(trainer, pl_module, stage)
        if not shows_progress_bars():
            self.disable()


class RecordRateColumn(ProgressColumn):
    """Records per second over all ranks: rich's estimate of batches per second, times the mean batch size.

    Example:
        >>> column = RecordRateColumn("pairs")
        >>> column.count(64)
        >>> column.records_per_batch
        64.0
    """

    def __init__(self, noun: str) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self.noun = noun
        self._num_records = 0
        self._num_batches = 0

    @property
    def records_per_batch(self) -> float:
        """Mean number of records per batch so far."""
        return self._num_records / self._num_batches if self._num_batches else 0.0

    def count(self, num_records: int) -> None:
        """Count a batch."""
        self._num_records += num_records
        self._num_batches += 1

    def render(self, task: Task) -> Text:
        """Return the rate; empty until it is known."""
        if task.speed is None or not self._num_batches:
            return Text()
        return Text(f"{task.speed * self.records_per_batch:.1f} {self.noun}/s")


class PredictionProgressBar(TerminalProgressBar):
    """Lightning's progress bar for ``predict``: batches, elapsed and remaining time, and records per second.

    The rate is that of all ranks, assuming that they are equally fast. A resumed run counts the remaining records.

    Args:
        noun: Name of the records, in the plural.
        refresh_rate: Batches between two updates of the bar.
        leave: Keep the bar on the screen at the end.

    Example:
        >>> PredictionProgressBar("captions").noun
        'captions'
    """

    _record_rate: RecordRateColumn | None = None  # None where the bar is disabled, as on all ranks but 0

    def __init__(self, noun: str = "pairs", refresh_rate: int = 1, leave: bool = False) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=leave)
        self.noun = noun

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """Return Lightning's columns, with records per second in place of batches per second."""
        self._record_rate = RecordRateColumn(self.noun)
        return [*super().configure_columns(trainer)[:-1], self._record_rate]

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Run after each batch: counts its records."""
        if self._record_rate is not None:
            self._record_rate.count(len(batch) * trainer.world_size)
        super().on_predict_batch_end(trainer, pl_module, outputs, batch, *args)
