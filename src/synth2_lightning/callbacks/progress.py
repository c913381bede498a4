"""What a prediction shows while it runs."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich.progress import ProgressColumn, Task
from rich.table import Column
from rich.text import Text


class PairRateColumn(ProgressColumn):
    """Pairs per second: rich's own estimate of the batches per second, times the pairs of a batch over all ranks.

    Example:
        >>> column = PairRateColumn()
        >>> column.count(64)
        >>> column.pairs_per_batch
        64.0
    """

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._num_pairs = 0
        self._num_batches = 0

    @property
    def pairs_per_batch(self) -> float:
        """Mean size of the batches so far."""
        return self._num_pairs / self._num_batches if self._num_batches else 0.0

    def count(self, num_pairs: int) -> None:
        """Take note of a batch."""
        self._num_pairs += num_pairs
        self._num_batches += 1

    def render(self, task: Task) -> Text:
        """Show the rate, once there is one."""
        if task.speed is None or not self._num_batches:
            return Text()
        return Text(f"{task.speed * self.pairs_per_batch:.1f} pairs/s")


class PredictionProgressBar(RichProgressBar):
    """Lightning's progress bar for ``predict``: batches, time gone and time left, and pairs per second at the end.

    The rate is that of all ranks together, as far as they are equally fast. A run that goes on where another stopped
    counts what is left.

    Example:
        >>> PredictionProgressBar(refresh_rate=10).refresh_rate
        10
    """

    _pair_rate: PairRateColumn | None = None  # none where the bar is not shown, as on all ranks but the first

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """Give Lightning's columns, with ours in place of the last one, the batches per second."""
        self._pair_rate = PairRateColumn()
        return [*super().configure_columns(trainer)[:-1], self._pair_rate]

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the pairs of a batch."""
        if self._pair_rate is not None:
            self._pair_rate.count(len(batch) * trainer.world_size)
        super().on_predict_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
