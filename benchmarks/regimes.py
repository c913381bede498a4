"""Runs of captioners: training that resumes, and scores of the last step.

Used by ``scenes_gain.py`` and by the benchmarks on Flickr8k. A run is a folder. It is finished if it has an end mark;
before that, the same command resumes it from its last checkpoint.
"""

import csv
import json
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from intervals import Cell, Floats
from synth2_lightning.metrics.bleu import bleu
from synth2_lightning.metrics.cider import cider
from synth2_lightning.metrics.rouge import rouge
from tasks import Task, run_command

END = "ended"
"""Name of the end mark in the folder of a run."""
VALIDATION = "validation"
"""Name of the folder in that of a run that has the scores on other images."""
_FIGURES = ("cider", "bleu_4", "rouge_l", "loss")


@dataclass(frozen=True)
class Run:
    """Scores of one captioner on the images of its last validation.

    Attributes:
        cider: CIDEr-D of the corpus.
        bleu_4: BLEU-4 of the corpus.
        rouge_l: ROUGE-L, a mean over images.
        loss: Negative log-likelihood of the references in nats per token; ``None`` for a part of the images.
        scores: CIDEr-D of each image.
        rouge_scores: ROUGE-L of each image.
        num_steps: Step of the validation.
        commit: Commit of the repository when the run ended.
    """

    cider: float
    bleu_4: float
    rouge_l: float
    loss: float | None
    scores: Mapping[str, float]
    rouge_scores: Mapping[str, float]
    num_steps: int
    commit: str | None


@dataclass(frozen=True)
class Fit:
    """Arguments of one ``synth2 fit``.

    Args:
        folder: Folder of the run: logs, captions, checkpoints and the end mark.
        config: Run file.
        words: Further arguments, which override the settings.
        seed: Seed of weights and data.
        num_threads: Number of threads.
        settings: Settings that override those of the run file.
        working_folder: Folder that the paths in run files are relative to.
    """

    folder: Path
    config: str
    words: Sequence[str]
    seed: int
    num_threads: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    working_folder: Path = Path()

    def task(self, name: str, minutes: float, needs: tuple[str, ...] = ()) -> Task:
        """Return the task that runs it; the arguments are those of :class:`Task`."""
        return Task(name, self.folder / END, minutes, self.run, needs)

    def validation_task(self, name: str, minutes: float, working_folder: Path, needs: tuple[str, ...] = ()) -> Task:
        """Return the task that scores its last checkpoint in another working folder; the results are in ``validation``.

        The other arguments are those of :class:`Task`.
        """
        return Task(name, self.folder / VALIDATION / END, minutes, partial(self._validate, working_folder), needs)

    def run(self) -> None:
        """Run the command, or resume it from the last checkpoint in its folder; keep only the last checkpoint."""
        folder = self.folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        metrics = folder / "metrics.csv"
        if metrics.exists():  # the logger of a resumed run would delete it
            metrics.rename(folder / f"metrics-{len(list(folder.glob('metrics-*.csv')))}.csv")
        words = self._words("fit", folder, "last")
        run_command(words, folder / "log.txt", self.num_threads, self.working_folder)
        last = (folder / "checkpoints" / "last.ckpt").resolve()
        for path in (folder / "checkpoints").glob("*.ckpt"):
            if last.exists() and path.resolve() != last:
                path.unlink()

    def _validate(self, working_folder: Path) -> None:
        folder = self.folder.absolute() / VALIDATION
        shutil.rmtree(folder, ignore_errors=True)  # of a validation that was stopped
        folder.mkdir()
        words = self._words("validate", folder, str(folder.parent / "checkpoints" / "last.ckpt"))
        run_command(words, folder / "log.txt", self.num_threads, working_folder)

    def _words(self, command: str, folder: Path, checkpoint: str) -> list[str]:
        """Return the arguments of a command, and write its settings and where it logs into the folder."""
        logger = {"save_dir": str(folder.parents[1]), "name": folder.parent.name, "version": folder.name}
        trainer = {"logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": logger}}
        settings = {**self.settings, "trainer": {**self.settings.get("trainer", {}), **trainer}}
        (folder / "settings.yaml").write_text(json.dumps(settings))  # JSON is YAML
        words = [command, "--config", self.config, "--config", str(folder / "settings.yaml"), *self.words]
        seeds = ["--seed_everything", str(self.seed), f"--data.init_args.seed={self.seed}"]
        return [*words, "--ckpt_path", checkpoint, *seeds]


def read(folder: Path, keep: Callable[[str], bool] | None = None) -> Run:
    """Return the scores of a run at its last step; with ``keep``, of those images only, as their own corpus."""
    passes = {int(path.name.partition("=")[2]): path for path in (folder / "cider").glob("val-step=*")}
    num_steps = max(passes)
    lines = (passes[num_steps] / "predictions.jsonl").read_text("utf-8").splitlines()
    kept = (row for row in map(json.loads, lines) if keep is None or keep(row["key"]))
    rows = sorted(kept, key=lambda row: str(row["key"]))
    captions = {row["key"]: row["caption"] for row in rows}
    references = {row["key"]: row["references"] for row in rows}
    scored, overlap = cider(captions, references), rouge(captions, references)
    return Run(
        scored.score,
        bleu(captions, references).corpus[3],
        overlap.score,
        _read_loss(folder) if keep is None else None,
        scored.scores,
        overlap.scores,
        num_steps,
        json.loads((folder / END).read_text("utf-8"))["commit"] if (folder / END).exists() else None,
    )


def _read_loss(folder: Path) -> float:
    """Return the validation loss of the largest step; a resumed run has several files."""
    losses: dict[int, float] = {}
    for path in folder.glob("metrics*.csv"):
        with path.open() as file:
            losses |= {int(row["step"]): float(row["val/loss"]) for row in csv.DictReader(file) if row.get("val/loss")}
    return losses[max(losses)]


def scores_of(runs: Mapping[Cell, Run], metric: str = "scores") -> dict[Cell, Floats]:
    """Return the scores of all images by run, in the order of their keys; of BLEU-4, the score of the corpus alone.

    Args:
        runs: Runs that were scored on the same images.
        metric: ``scores`` (CIDEr-D), ``rouge_scores`` or ``bleu_4``.
    """
    if metric == "bleu_4":
        return {cell: np.array([run.bleu_4]) for cell, run in runs.items()}
    by_run: dict[Cell, Mapping[str, float]] = {cell: getattr(run, metric) for cell, run in runs.items()}
    return {cell: np.array([values[key] for key in sorted(values)]) for cell, values in by_run.items()}


def summarize(runs: Mapping[Cell, Run]) -> dict[str, Any]:
    """Return means and standard deviations over runs, for a JSON file; one run has no deviation."""
    figures: dict[str, Any] = {"num_runs": len(runs)}
    for name in _FIGURES:
        values = [getattr(run, name) for run in runs.values()]
        if None in values:
            continue
        figures[name] = round(statistics.mean(values), 4)
        figures[f"{name}_sd"] = round(statistics.stdev(values), 4) if len(values) > 1 else None
    return figures


def list_runs(runs: Mapping[str, Mapping[Cell, Run]]) -> list[dict[str, object]]:
    """Return the figures of each run, for a JSON file."""
    return [
        {
            "regime": regime,
            **cell._asdict(),
            "num_steps": run.num_steps,
            "commit": run.commit,
            **{name: round(value, 4) for name in _FIGURES if (value := getattr(run, name)) is not None},
        }
        for regime, group in runs.items()
        for cell, run in group.items()
    ]
