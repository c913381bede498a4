from io import StringIO

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.component_summary import ComponentSummaryCallback


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Linear(9, 1000).requires_grad_(False)
        self.head = torch.nn.Sequential(torch.nn.Linear(1, 100), torch.nn.Linear(100, 1).requires_grad_(False))
        self.metric = torch.nn.Identity()

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = self.head(batch).sum()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.head.parameters(), lr=0.0)


@pytest.mark.filterwarnings("ignore:The .* does not have many workers", "ignore:The number of training batches")
def test_the_summary_shows_what_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=StringIO(), width=80)
    monkeypatch.setattr("rich.get_console", lambda: console)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_steps=1,
        callbacks=[ComponentSummaryCallback()],
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(torch.zeros(2, 1), batch_size=1))  # type: ignore[arg-type]
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    rows = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in shown.splitlines()]
    assert [row for row in rows if len(row) == 4] == [
        ["Component", "Class", "Parameters", "Trained"],
        ["encoder", "Linear", "10.0 K", "0"],
        ["head", "Sequential", "301", "200"],
        ["total", "", "10.3 K", "200"],
    ]
