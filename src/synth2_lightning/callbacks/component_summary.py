"""Summary of a module's components before training."""

from collections.abc import Iterator

import rich
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities.model_summary.model_summary import get_human_readable_count
from rich.table import Table
from torch import nn


class ComponentSummaryCallback(ModelSummary):
    """Prints the components of the module with their numbers of parameters, and of those that are trained.

    Lightning's summary, which it replaces, adds FLOPs that are 0 without an example input, and modes that say ``train``
    of frozen components.

    Example:
        >>> import torch
        >>> module = LightningModule()
        >>> module.head = torch.nn.Linear(9, 1000)
        >>> list(ComponentSummaryCallback.list_components(module))
        [('head', 'Linear', 10000, 10000)]
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run before training, with all weights loaded: prints the table on one rank."""
        if not trainer.is_global_zero:
            return
        table = Table(header_style="bold")
        for name in ("Component", "Class"):
            table.add_column(name)
        for name in ("Parameters", "Trained"):
            table.add_column(name, justify="right")
        components = list(self.list_components(pl_module))
        for name, class_name, *counts in components:
            table.add_row(name, class_name, *map(get_human_readable_count, counts))
        table.add_section()
        totals = (sum(column) for column in zip(*(counts for _, _, *counts in components), strict=True))
        table.add_row("total", "", *map(get_human_readable_count, totals))
        rich.get_console().print(table)

    @staticmethod
    def list_components(module: LightningModule) -> Iterator[tuple[str, str, int, int]]:
        """Yield name, class, number of parameters and number of trained parameters of each component that has any."""
        for name, part in module.named_children():
            if parameters := list(part.parameters()):
                trained = [parameter for parameter in parameters if parameter.requires_grad]
                yield name, type(part).__name__, _count(parameters), _count(trained)


def _count(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
