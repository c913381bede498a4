"""Trains captioners under several regimes and seeds, and says which differences are more than chance.

Controls keep the captions of generated pairs and put other tokens beside them.

What ``scenes_gain.py`` and ``flickr8k_gain.py`` share. A run that was stopped is begun again; one that ended is read.
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

NUM_DRAWS = 10_000
ROWS = 500


@dataclass(frozen=True)
class Regime:
    """One way to train: what stands behind ``synth2 fit``."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """What one captioner reached on the pictures that it is judged by, at its last step."""

    cider: float
    loss: float
    scores: Mapping[str, float]
    curve: Mapping[int, float]


def train(regimes: Sequence[Regime], seeds: Sequence[int], folder: Path, num_jobs: int) -> None:
    """Train what is not trained yet, several runs side by side."""
    waiting = [(regime, seed) for seed in seeds for regime in regimes if not ended(folder, regime.name, seed)]
    threads = max(1, (os.cpu_count() or 1) // num_jobs)
    print(f"{len(waiting)} of {len(regimes) * len(seeds)} runs to go, {num_jobs} at a time in {folder}", flush=True)
    with ThreadPoolExecutor(num_jobs) as pool:
        for line in pool.map(lambda one: _train_one(one[0], one[1], folder, threads), waiting):
            print(line, flush=True)


def read(regime: str, seed: int, folder: Path, keep: Callable[[str], bool] = lambda _: True) -> Run:
    """Read what a run reached; with ``keep``, CIDEr over those pictures alone, with their own document frequencies."""
    place = _place(folder, regime, seed)
    passes = {int(path.name.partition("=")[2]): path for path in (place / "cider").glob("val-step=*")}
    results = {}
    for step, path in sorted(passes.items()):
        rows = [json.loads(line) for line in (path / "predictions.jsonl").read_text("utf-8").splitlines()]
        kept = [row for row in rows if keep(row["key"])]
        results[step] = cider(
            {row["key"]: row["caption"] for row in kept}, {row["key"]: row["references"] for row in kept}
        )
    last = results[max(results)]
    with (place / "metrics.csv").open() as file:
        losses = [float(row["val/loss"]) for row in csv.DictReader(file) if row.get("val/loss")]
    return Run(last.score, losses[-1], last.scores, {step: result.score for step, result in results.items()})


def paired_interval(runs: Sequence[Run], others: Sequence[Run]) -> tuple[float, float, float]:
    """Mean difference of CIDEr and its 95 % interval, by drawing pictures anew (Efron's bootstrap), both sides alike.

    A picture's score is its mean over the seeds; how much seeds differ is not in the interval, but in the spread.
    """
    keys = sorted(runs[0].scores)
    means = [np.array([statistics.mean(run.scores[key] for run in side) for key in keys]) for side in (runs, others)]
    differences = means[0] - means[1]
    draws = np.random.default_rng(0).integers(len(keys), size=(NUM_DRAWS, len(keys)))
    low, high = np.quantile(differences[draws].mean(axis=1), [0.025, 0.975])
    return float(differences.mean()), float(low), float(high)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def show(title: str, runs: Mapping[str, Sequence[Run]], rival: str) -> dict[str, object]:
    """Print a table, and return its figures for the JSON line."""
    table = Table(title=title)
    for heading in ("regime", "runs", "CIDEr", "sd", "NLL", "sd ", f"CIDEr over {rival}", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "regime" else "right")
    figures: dict[str, object] = {}
    for name, group in runs.items():
        score, deviation = spread([run.cider for run in group])
        loss, loss_deviation = spread([run.loss for run in group])
        gain, low, high = paired_interval(group, runs[rival])
        interval = "" if name == rival else f"{low:+.3f} … {high:+.3f}"
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
    """Write ``blank``: every caption with the same grid; and ``shuffled``: the tokens, dealt out anew over captions."""
    dealt = torch.randperm(len(synthetic), generator=torch.Generator().manual_seed(0)).tolist()
    write_control(folder / "blank", synthetic, lambda rows: torch.zeros_like(synthetic.read(rows).tokens.ids))
    write_control(folder / "shuffled", synthetic, lambda rows: synthetic.read([dealt[row] for row in rows]).tokens.ids)


def write_control(folder: Path, synthetic: ShardReader, choose: Callable[[range], Tensor]) -> None:
    """Write the captions of generated pairs with other tokens.

    Args:
        folder: Of the shards; what is there and finished is kept.
        synthetic: The generated pairs, loaded.
        choose: Ids for rows of them; (rows, tokens, levels).
    """
    if (folder / "manifest.json").exists():
        return
    writer = ShardWriter(folder)
    for first in range(0, len(synthetic), ROWS):
        rows = range(first, min(first + ROWS, len(synthetic)))
        pairs = synthetic.read_whole(rows)  # scores included, so that a filter keeps the same captions
        tokens = VQTokens(choose(rows), pairs.tokens.codebook)
        writer.append(replace(pairs, tokens=tokens, sources=(folder.name,) * len(rows)))
    writer.close()
    finish(folder, {"control": folder.name})


def _place(folder: Path, regime: str, seed: int) -> Path:
    return folder / regime / f"seed-{seed}"


def ended(folder: Path, regime: str, seed: int) -> bool:
    """Whether a run has reached its last step."""
    return (_place(folder, regime, seed) / "ended").exists()


def _train_one(regime: Regime, seed: int, folder: Path, threads: int) -> str:
    place = _place(folder, regime.name, seed)
    place.mkdir(parents=True, exist_ok=True)
    logger = {"save_dir": str(folder), "name": regime.name, "version": place.name}
    # JSON is YAML. The log folder decides where scores and captions go.
    overlay = {"trainer": {"logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": logger}}}
    (place / "place.yaml").write_text(json.dumps(overlay))
    words = [sys.executable, "-m", "synth2_lightning", "fit", *regime.arguments, "--config", str(place / "place.yaml")]
    words += ["--seed_everything", str(seed), f"--data.init_args.seed={seed}"]
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}  # a user may know better
    with (place / "log.txt").open("w") as log:
        result = subprocess.run(words, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False)
    if result.returncode:
        tail = "\n".join((place / "log.txt").read_text().splitlines()[-15:])
        raise SystemExit(
            f"{regime.name}, seed {seed}, ended with {result.returncode}:\n{tail}\n… of {place / 'log.txt'}"
        )
    (place / "ended").touch()
    run = read(regime.name, seed, folder)
    return f"{regime.name}, seed {seed}: CIDEr {run.cider:.3f}, NLL {run.loss:.3f}"
