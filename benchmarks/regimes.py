"""Training of captioners under several regimes and seeds, with confidence intervals of their differences.

Used by ``scenes_gain.py`` and ``flickr8k_gain.py``. Interrupted runs start again; finished runs are kept. Controls have
the captions of generated pairs with other tokens.
"""

import csv
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from synth2_lightning.metrics.cider import cider
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.types import VQTokens

NUM_RESAMPLES = 10_000
ROWS = 500


@dataclass(frozen=True)
class Regime:
    """A name and the arguments of ``synth2 fit``."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """Validation results of one captioner at its last step."""

    cider: float
    loss: float
    scores: Mapping[str, float]
    curve: Mapping[int, float]


def train(regimes: Sequence[Regime], seeds: Sequence[int], folder: Path, num_jobs: int) -> None:
    """Train all runs that are not finished, several in parallel."""
    pending = [(regime, seed) for seed in seeds for regime in regimes if not ended(folder, regime.name, seed)]
    threads = max(1, (os.cpu_count() or 1) // num_jobs)
    print(f"{len(pending)} of {len(regimes) * len(seeds)} runs to train, {num_jobs} at a time, in {folder}", flush=True)
    with ThreadPoolExecutor(num_jobs) as pool:
        for line in pool.map(lambda one: _train_one(one[0], one[1], folder, threads), pending):
            print(line, flush=True)


def read(regime: str, seed: int, folder: Path, keep: Callable[[str], bool] = lambda _: True) -> Run:
    """Return the results of a run; with ``keep``, CIDEr on those images only, with their own document frequencies."""
    run_folder = _run_folder(folder, regime, seed)
    passes = {int(path.name.partition("=")[2]): path for path in (run_folder / "cider").glob("val-step=*")}
    results = {}
    for step, path in sorted(passes.items()):
        rows = [json.loads(line) for line in (path / "predictions.jsonl").read_text("utf-8").splitlines()]
        kept = [row for row in rows if keep(row["key"])]
        results[step] = cider(
            {row["key"]: row["caption"] for row in kept}, {row["key"]: row["references"] for row in kept}
        )
    last = results[max(results)]
    with (run_folder / "metrics.csv").open() as file:
        losses = [float(row["val/loss"]) for row in csv.DictReader(file) if row.get("val/loss")]
    return Run(last.score, losses[-1], last.scores, {step: result.score for step, result in results.items()})


def paired_interval(runs: Sequence[Run], others: Sequence[Run]) -> tuple[float, float, float]:
    """Return the mean difference of CIDEr and its 95 % interval, by a paired bootstrap over images (Efron).

    An image's score is its mean over seeds; the interval does not include the variance over seeds.
    """
    keys = sorted(runs[0].scores)
    means = [np.array([statistics.mean(run.scores[key] for run in side) for key in keys]) for side in (runs, others)]
    differences = means[0] - means[1]
    resamples = np.random.default_rng(0).integers(len(keys), size=(NUM_RESAMPLES, len(keys)))
    low, high = np.quantile(differences[resamples].mean(axis=1), [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation over seeds."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def show(title: str, runs: Mapping[str, Sequence[Run]], baseline: str) -> dict[str, object]:
    """Print a table, and return its figures for the JSON line."""
    table = Table(title=title)
    for heading in ("regime", "runs", "CIDEr", "sd", "NLL", "sd ", f"CIDEr over {baseline}", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "regime" else "right")
    figures: dict[str, object] = {}
    for name, group in runs.items():
        score, deviation = spread([run.cider for run in group])
        loss, loss_deviation = spread([run.loss for run in group])
        gain, low, high = paired_interval(group, runs[baseline])
        interval = "" if name == baseline else f"{low:+.3f} … {high:+.3f}"
        row = (f"{score:.3f}", f"{deviation:.3f}", f"{loss:.3f}", f"{loss_deviation:.3f}", f"{gain:+.3f}", interval)
        table.add_row(name, str(len(group)), *row)
        figures[name] = {
            "cider": round(score, 4),
            "cider_sd": round(deviation, 4) if len(group) > 1 else None,
            "nll": round(loss, 4),
            "nll_sd": round(loss_deviation, 4) if len(group) > 1 else None,
            "cider_curve": [{step: round(value, 4) for step, value in run.curve.items()} for run in group],
            "gain": round(gain, 4),
            "gain_interval": [round(low, 4), round(high, 4)],
        }
    Console(width=120).print(table)
    return figures


def write_text_controls(folder: Path, synthetic: ShardReader) -> None:
    """Write the controls ``blank``, all captions with the same tokens, and ``shuffled``, the tokens permuted."""
    order = torch.randperm(len(synthetic), generator=torch.Generator().manual_seed(0)).tolist()
    write_control(folder / "blank", synthetic, lambda rows: torch.zeros_like(synthetic.read(rows).tokens.ids))
    write_control(folder / "shuffled", synthetic, lambda rows: synthetic.read([order[row] for row in rows]).tokens.ids)


def write_control(folder: Path, synthetic: ShardReader, choose: Callable[[range], Tensor]) -> None:
    """Write the captions of generated pairs with other tokens.

    Args:
        folder: Folder of the shards; finished ones are kept.
        synthetic: The generated pairs, loaded.
        choose: Returns ids of shape (rows, tokens, levels) for rows of the pairs.
    """
    if (folder / "manifest.json").exists():
        return
    writer = ShardWriter(folder)
    for first in range(0, len(synthetic), ROWS):
        rows = range(first, min(first + ROWS, len(synthetic)))
        pairs = synthetic.read_all_columns(rows)  # scores included, so that a filter keeps the same captions
        tokens = VQTokens(choose(rows), pairs.tokens.codebook)
        samples = tuple(replace(sample, source=folder.name) for sample in pairs.samples)
        writer.append(replace(pairs, tokens=tokens, samples=samples))
    writer.close()
    finish(folder, {"control": folder.name})


def _run_folder(folder: Path, regime: str, seed: int) -> Path:
    return folder / regime / f"seed-{seed}"


def ended(folder: Path, regime: str, seed: int) -> bool:
    """Return whether a run is finished."""
    return (_run_folder(folder, regime, seed) / "ended").exists()


def _train_one(regime: Regime, seed: int, folder: Path, threads: int) -> str:
    run_folder = _run_folder(folder, regime.name, seed)
    run_folder.mkdir(parents=True, exist_ok=True)
    logger = {"save_dir": str(folder), "name": regime.name, "version": run_folder.name}
    # JSON is YAML. Scores and captions are written to the logger's folder.
    overlay = {"trainer": {"logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": logger}}}
    (run_folder / "logger.yaml").write_text(json.dumps(overlay))
    words = [sys.executable, "-m", "synth2_lightning", "fit", *regime.arguments]
    words += ["--config", str(run_folder / "logger.yaml")]
    words += ["--seed_everything", str(seed), f"--data.init_args.seed={seed}"]
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}  # the user's setting has precedence
    log_file = run_folder / "log.txt"
    with log_file.open("w") as log:
        result = subprocess.run(words, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False)
    if result.returncode:
        tail = "\n".join(log_file.read_text().splitlines()[-15:])
        raise SystemExit(
            f"{regime.name}, seed {seed}, failed with exit code {result.returncode}. The end of {log_file}:\n{tail}"
        )
    (run_folder / "ended").touch()
    run = read(regime.name, seed, folder)
    return f"{regime.name}, seed {seed}: CIDEr {run.cider:.3f}, NLL {run.loss:.3f}"
