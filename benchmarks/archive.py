"""Scores of finished captioners in a file of the repository, so that an experiment continues on another machine.

``results/flickr8k_runs.jsonl`` has one line per run and set of photos. A run that has a line is not trained again; its
checkpoint, which only this file lacks, is needed by regimes that start from it. Scores of photos are in the order of
their ids, in thousandths.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from intervals import Cell
from regimes import END, VALIDATION, Run, read

FILE = "flickr8k_runs.jsonl"
_FIGURES = ("cider", "bleu_4", "rouge_l", "loss", "num_steps", "commit")
_RUN = re.compile(
    r"photos-(?P<num_real>\d+)/draw-(?P<draw>\d+)/captioners/(?P<regime>[^/]+)/(?P<point>[^/]+)-g(?P<generator>\d+)"
    rf"/seed-(?P<seed>\d+)(?P<validated>/{VALIDATION})?/{END}"
)


class RunKey(NamedTuple):
    """What identifies a run and the photos that it was scored on.

    Attributes:
        num_real: Number of real photos.
        regime: Name of the regime.
        point: Name of the point of the grid.
        cell: Seeds.
        is_validated: Whether it was scored on the validation photos, or else on the held-back training photos.
    """

    num_real: int
    regime: str
    point: str
    cell: Cell
    is_validated: bool


def collect(root: Path) -> dict[RunKey, Run]:
    """Return the finished runs in the folder of a benchmark."""
    runs = {}
    for end in root.glob(f"photos-*/draw-*/captioners/*/*/seed-*/**/{END}"):
        words = "/".join(end.relative_to(root).parts)
        if match := _RUN.fullmatch(words):
            cell = Cell(int(match["draw"]), int(match["generator"]), int(match["seed"]))
            key = RunKey(int(match["num_real"]), match["regime"], match["point"], cell, match["validated"] is not None)
            runs[key] = read_finished(end.parent, key)
    return runs


def read_finished(folder: Path, key: RunKey) -> Run:
    """Return the scores in a folder; `synth2 validate` does not know the number of steps, so it is the point's."""
    return replace(read(folder), num_steps=int(key.point.partition("-")[0]))


def load(path: Path, photos: Mapping[bool, Iterable[str]]) -> dict[RunKey, Run]:
    """Return the archived runs; none if the file does not exist.

    Args:
        path: The file.
        photos: Ids of the validation photos, under ``True``, and of the held-back photos.

    Raises:
        ValueError: If a run has another number of scores than there are photos.
    """
    ids = {name: sorted(keys) for name, keys in photos.items()}
    runs = {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        values = json.loads(line)
        key = RunKey(*(values[name] for name in RunKey._fields))._replace(cell=Cell(*values["cell"]))
        own = ids[key.is_validated]
        if len(own) != len(values["scores"]):
            raise ValueError(
                f"{path} has {len(values['scores'])} scores of {key}, but there are {len(own)} photos; expected the "
                "photos that the run was scored on. Delete the line, and the benchmark trains the run again."
            )
        scores, rouge_scores = (
            {photo: score / 1000 for photo, score in zip(own, values[name], strict=True)}
            for name in ("scores", "rouge_scores")
        )
        figures: dict[str, Any] = {name: values[name] for name in _FIGURES}
        runs[key] = Run(scores=scores, rouge_scores=rouge_scores, **figures)
    return runs


def save(path: Path, runs: Mapping[RunKey, Run]) -> None:
    """Write runs to the file, sorted by their keys."""
    lines = []
    for key in sorted(runs):
        run = runs[key]
        values = {**key._asdict(), **{name: getattr(run, name) for name in _FIGURES}}
        for name in ("scores", "rouge_scores"):
            by_photo: Mapping[str, float] = getattr(run, name)
            values[name] = [round(1000 * by_photo[photo]) for photo in sorted(by_photo)]
        lines.append(json.dumps(values, separators=(",", ":")) + "\n")
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(lines), "utf-8")
