"""Answers of a fine-tuned language model to prompts of held-out captions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer

from synth2_lightning.callbacks.evaluated_step import evaluated_step
from synth2_lightning.callbacks.logged_samples import log_table
from synth2_lightning.callbacks.run_folder import name_folder_settings, run_folder
from synth2_lightning.io.atomic import write_atomically
from synth2_lightning.types import CLASS_NAME_SEPARATOR, Prompt


@runtime_checkable
class AnswersPrompts(Protocol):
    """Module whose validation steps return ``concepts``, ``prompts`` and ``captions``."""

    def answer(self, prompts: Sequence[Prompt]) -> list[str]:
        """Return an answer to each prompt."""


class TextSamplesCallback(Callback):
    """Writes answers to the first prompts of a validation, with the held-out captions: a table, and loggers.

    Args:
        num_samples: Number of prompts; the first ones of the validation set, so that tables are comparable.
        folder: Folder of ``step=<n>.tsv``; by default ``samples/`` in the run's log folder.

    Raises:
        ValueError: If the number is below 1.
    """

    def __init__(self, num_samples: int = 16, folder: str | None = None) -> None:
        if num_samples < 1:
            raise ValueError(f"TextSamplesCallback got num_samples={num_samples}; expected 1 or more.")
        self.num_samples = num_samples
        self.folder = folder
        self._rows: list[tuple[str, str, str]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the start of a validation: clears the table."""
        self._rows = []

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any) -> None:
        """Run after each batch of a validation: answers its prompts, until there are enough."""
        if not isinstance(pl_module, AnswersPrompts):
            raise TypeError(
                f"TextSamplesCallback got a {type(pl_module).__name__}; expected a LanguageModelingModule. Remove the "
                "callback from the run file."
            )
        num_missing = self.num_samples - len(self._rows)
        if num_missing < 1 or trainer.sanity_checking:
            return
        answers = pl_module.answer(outputs["prompts"][:num_missing])
        names = [CLASS_NAME_SEPARATOR.join(concept.name for concept in each) for each in outputs["concepts"]]
        self._rows += zip(names, answers, outputs["captions"], strict=False)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the end of a validation: writes the table."""
        if not self._rows or not trainer.is_global_zero:
            return
        headings = ["concepts", "sample", "held-out caption"]
        rows = [[" ".join(text.split()) for text in row] for row in self._rows]
        table = "".join("\t".join(line) + "\n" for line in (headings, *rows))
        folder, step = Path(self.folder or run_folder(trainer) / "samples"), evaluated_step(trainer, pl_module)
        with name_folder_settings(self):
            write_atomically(folder / f"step={step}.tsv", lambda draft: draft.write_text(table, "utf-8"))
        log_table(trainer.loggers, "val/samples", headings, rows, step)
