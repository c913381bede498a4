from io import StringIO
from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console
from rich.progress import Progress
from torch.utils.data import DataLoader

from synth2_lightning.callbacks import progress
from synth2_lightning.callbacks.progress import PredictionProgressBar, RecordRateColumn, TerminalProgressBar
from synth2_lightning.testing import tiny_batch
from synth2_lightning.types import ImageTextBatch

pytestmark = pytest.mark.filterwarnings("ignore:The 'predict_dataloader' does not have many workers")


def loader(*sizes: int) -> DataLoader[ImageTextBatch]:
    batches: Any = [tiny_batch(size) for size in sizes]
    return DataLoader(dataset=batches, batch_size=None)


class Predicting(LightningModule):
    def predict_step(self, batch: ImageTextBatch, batch_idx: int) -> int:
        return len(batch)


def test_the_rate_is_batches_per_second_times_mean_batch_size() -> None:
    now = 0.0
    column = RecordRateColumn("pairs")
    tasks = Progress(console=Console(file=StringIO()), get_time=lambda: now)
    tasks.add_task("", total=10)
    (task,) = tasks.tasks
    assert column.render(task).plain == ""
    for size in (8, 8, 2):
        now += 2.0
        column.count(size)
        tasks.advance(task.id)
    # one batch of six pairs on average every two seconds
    assert task.speed == 0.5
    assert column.render(task).plain == "3.0 pairs/s"


def test_predict_shows_pairs_per_second_and_the_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "shows_progress_bars", lambda: True)
    bar = PredictionProgressBar(leave=True)
    shown: list[str] = []

    def look(*_: object) -> None:
        assert bar.progress is not None
        console = Console(file=StringIO(), width=200)
        console.print(bar.progress.get_renderable())
        shown.append(console.file.getvalue())  # type: ignore[attr-defined]

    monkeypatch.setattr(bar, "on_predict_epoch_end", look)
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[bar], enable_model_summary=False)
    trainer.predict(Predicting(), loader(4, 4, 1))

    (text,) = shown
    assert "Predicting" in text
    assert "3/3" in text
    assert "•" in text  # elapsed and remaining time
    assert "pairs/s" in text
    assert "it/s" not in text  # two rates would not fit into a narrow terminal
    assert bar._record_rate is not None
    assert bar._record_rate.records_per_batch == 3.0


def test_a_disabled_bar_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "shows_progress_bars", lambda: True)
    bar = PredictionProgressBar(refresh_rate=0)
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[bar], enable_model_summary=False)
    trainer.predict(Predicting(), loader(4))
    assert bar._record_rate is None


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_bar_is_shown_in_terminals_only(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "shows_progress_bars", lambda: is_terminal)
    bar = TerminalProgressBar(leave=True)
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[bar], enable_model_summary=False)
    trainer.predict(Predicting(), loader(4))
    assert bar.is_enabled is is_terminal
    assert ("Predicting" in capsys.readouterr().out) is is_terminal
