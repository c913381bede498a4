"""Captioners of the experiments on Flickr8k: their commands, the choice of a point, and their scores."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

import report
from archive import FILE, RunKey, collect, load, read_finished, save
from flickr8k_chain import CHOICE, SAVE, Chain, split
from flickr8k_plan import DERIVED, EQUAL, EXPERIMENT, FRACTION, NUM_REAL, REGIMES, START, Point, Regime
from intervals import Cell
from regimes import END, VALIDATION, Fit, Run
from synth2_lightning.cli.run_files import run_file_folder
from tasks import Task

_FIRST = Cell(0, 0, 0)
"""Draw, generator and captioner of the choice."""
Choice = Mapping[str, Mapping[Point, float]]


@dataclass(frozen=True)
class Experiment:
    """Captioners with one number of real photos.

    Args:
        root: Folder of the benchmark.
        data: Folder of Flickr8k.
        num_threads: Threads of each command.
        num_real: Number of real photos.
    """

    root: Path
    data: Path
    num_threads: int
    num_real: int = NUM_REAL

    def chain(self, draw: int) -> Chain:
        """Return the products of a draw."""
        return Chain(self.root, self.data, draw, self.num_real, self.num_threads)

    def tasks(self, regime: Regime, point: Point, cell: Cell, is_validated: bool = False) -> list[Task]:
        """Return the tasks of one captioner: of all that it needs, its training, and its validation.

        Args:
            regime: What it is trained on.
            point: Length and regularization.
            cell: Its seeds.
            is_validated: Whether it is scored on the validation photos, too, after the held-back training photos.
        """
        chain = self.chain(cell.draw)
        tasks = chain.token_tasks(point.levels)
        if regime.pairs in DERIVED:
            real = next(other for other in REGIMES if other.name == "real")
            tasks += self.tasks(real, replace(EQUAL, levels=point.levels), Cell(cell.draw, 0, 0))
            tasks += chain.derived_tasks(regime.pairs, cell.generator, point.levels, tasks[-1])
        elif regime.pairs:
            tasks += chain.pair_tasks(regime.pairs, cell.generator, point.levels)
        words = self._words(regime, point, cell)
        if regime.start:
            (start,) = (other for other in REGIMES if other.name == regime.start)
            tasks += self.tasks(start, point, cell)
            weights = self.run_folder(start, point, cell).absolute()
            words.append(f"--trainer.callbacks.weights={weights}")  # of the last callback, which its overlay adds
        folder = self.run_folder(regime, point, cell)
        config, settings = f"{EXPERIMENT}/{regime.file}", _settings(point)
        fit = Fit(folder, config, words, cell.seed, self.num_threads, settings, chain.folder / CHOICE)
        name = chain.task_name(f"{regime.name} at {point.name}, generator {cell.generator}, seed {cell.seed}")
        tasks.append(fit.task(name, regime.minutes or point.minutes, tuple(dict.fromkeys(task.name for task in tasks))))
        if is_validated:
            tasks += chain.validation_tasks()
            needs = (name, tasks[-1].name)
            tasks.append(fit.validation_task(f"validation of {name}", START / 60, chain.folder / VALIDATION, needs))
        return tasks

    def run_folder(self, regime: Regime, point: Point, cell: Cell) -> Path:
        """Return the folder of a captioner."""
        place = self.chain(cell.draw).folder / "captioners" / regime.name
        return place / f"{point.name}-g{cell.generator}" / f"seed-{cell.seed}"

    def choice_tasks(self, regimes: Iterable[Regime]) -> list[Task]:
        """Return the tasks that the choice of the points needs; they read no validation photo."""
        runs = [(regime, point) for regime in regimes if not regime.like for point in regime.grid]
        return [task for run in runs for task in self.missing_tasks(*run, _FIRST, is_validated=False)]

    def missing_tasks(self, regime: Regime, point: Point, cell: Cell, is_validated: bool = True) -> list[Task]:
        """Return the tasks of :meth:`tasks`, unless the run is archived."""
        is_archived = self._key(regime, point, cell, is_validated) in self._archived
        return [] if is_archived else self.tasks(regime, point, cell, is_validated)

    def choose(self, regimes: Iterable[Regime]) -> Choice:
        """Return CIDEr on the held-back photos by regime and point, for the regimes with all points.

        Raises:
            ValueError: If a run was scored on other photos.
        """
        choice = {}
        for regime in regimes:
            runs = {point: self.read(regime, point, [_FIRST], is_validated=False) for point in regime.grid}
            if not regime.like and all(runs.values()):
                for point, run in runs.items():
                    check_keys(f"{regime.name} at {point.name}", run[_FIRST].scores, self._held_back())
                choice[regime.name] = {point: run[_FIRST].cider for point, run in runs.items()}
        return choice

    def read(self, regime: Regime, point: Point, cells: Iterable[Cell], is_validated: bool = True) -> dict[Cell, Run]:
        """Return the scores of the finished captioners on the validation photos, or on the held-back ones."""
        runs = {}
        for cell in cells:
            key = self._key(regime, point, cell, is_validated)
            folder = self.run_folder(regime, point, cell) / (VALIDATION if is_validated else "")
            if (folder / END).exists():
                runs[cell] = read_finished(folder, key)
            elif key in self._archived:
                runs[cell] = self._archived[key]
        return runs

    def archive(self) -> None:
        """Write the scores of all finished captioners to the file of :mod:`archive`."""
        save(report.RESULTS / FILE, {**self._archived, **collect(self.root)})

    @cached_property
    def _archived(self) -> Mapping[RunKey, Run]:
        path = report.RESULTS / FILE
        return load(path, {True: self._photo_ids("val"), False: self._held_back()}) if path.exists() else {}

    def _key(self, regime: Regime, point: Point, cell: Cell, is_validated: bool) -> RunKey:
        return RunKey(self.num_real, regime.name, point.name, cell, is_validated)

    def _held_back(self) -> list[str]:
        return split(self._photo_ids("train"), 0)[1]

    def _photo_ids(self, name: str) -> list[str]:
        content = json.loads((self.data / f"captions_{name}.json").read_text("utf-8"))
        return [str(image["id"]) for image in content["images"]]

    def _words(self, regime: Regime, point: Point, cell: Cell) -> list[str]:
        words: list[str] = []
        pairs: list[str] = []
        if regime.file == "continuous.yaml":
            words.append(f"--data.init_args.train.init_args.limit={self.num_real}")
        else:
            words.append(f"{regime.real_data}.shards=shards/tokens-l{point.levels}")
            photos = "=null" if regime.has_all_photos else f".init_args.limit={self.num_real}"
            words.append(f"{regime.real_data}.photos{photos}")
        if regime.pairs:
            folder = self.chain(cell.draw).pairs_folder(regime.pairs, cell.generator, point.levels)
            pairs = [f"--data.init_args.synthetic.init_args.shards={folder}"]  # after the overlays, which name others
            if point.synthetic_fraction != EQUAL.synthetic_fraction:
                words.append(f"{FRACTION}.init_args.fraction={point.synthetic_fraction}")
        return [*words, SAVE, *(word.format(steps=point.steps) for word in regime.words), *pairs]


def best_point(scores: Mapping[Point, float]) -> Point:
    """Return the point of the highest score; of equal ones, the one with the fewest steps."""
    return max(scores, key=lambda point: (scores[point], -point.steps))


def check_keys(run: str, keys: Iterable[str], held_back: Collection[str]) -> None:
    """Check that a run of the choice was scored on the held-back photos only.

    Raises:
        ValueError: If it was scored on others.
    """
    if others := sorted(set(keys) - set(held_back)):
        raise ValueError(
            f"The run of {run} was scored on {len(others)} photos that are not held back, such as {others[0]}; "
            f"expected only the {len(held_back)} held-back training photos, because its score chooses a point. Delete "
            "its folder and run the benchmark again."
        )


def list_cells(regime: Regime, draws: Iterable[int], generators: Sequence[int], seeds: Sequence[int]) -> list[Cell]:
    """Return the seeds of a regime's runs; only generated pairs depend on the generator, and controls use the first."""
    own = generators if regime.pairs and "/" not in regime.pairs else generators[:1]
    if not regime.pairs:
        own = [0]
    return [Cell(draw, generator, seed) for draw in draws for generator in own for seed in seeds]


def _settings(point: Point) -> dict[str, Any]:
    """Return a point as a run file."""
    captioner = yaml.safe_load((run_file_folder() / EXPERIMENT / "model" / "captioner.yaml").read_text("utf-8"))
    language_model = captioner["init_args"]["decoder"]["init_args"]["language_model"]
    return point.settings(language_model["init_args"]["config"])
