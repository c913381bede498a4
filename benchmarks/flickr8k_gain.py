"""Gain in CIDEr from generated pairs with few photos (Flickr8k), against rivals at their best, with controls.

A captioner is trained on 1,000 photos; of 4,500 other photos only the captions are used. A generator that was trained
on the same 1,000 photos generates tokens for these captions (SynthPair of Synth², arXiv 2403.07750), or for captions by
a language model (GenPair). :mod:`flickr8k_plan` describes the photos, the grid and the regimes.

Length and regularization of a regime are chosen on held-back training photos, or are those of another regime
(``like``). Scores are CIDEr on the photos of the validation split, at the last step, at two points of the grid: the
*equal* one, the same for all regimes, and the *best* one, that was chosen for the regime. Draws of the photos,
generators and captioners have seeds; intervals include all of them and the photos (:mod:`intervals`). A gain compares
the runs of the draws that both regimes have.

The whole chain is made for each draw: vocabulary, codebook, tokens, generators, generated pairs, controls. An
interrupted benchmark resumes: run the same command again, or with more seeds. Run it in the folder of
``data/flickr8k``, after ``synth2 weights efficientnet-lite0 all-minilm-l6-v2 smollm2-135m-instruct``.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from flickr8k_plan import EQUAL, GRID, PROBES, REGIMES, Point, Regime
from flickr8k_runs import Choice, Experiment, best_point, list_cells
from intervals import Cell, Floats, Means, estimate
from regimes import Run, list_runs, scores_of, summarize
from report import save
from tasks import Task, print_tasks, run_tasks

Runs = Mapping[str, Mapping[Cell, Run]]
_GAP = ("real", "mixed", "photos")
"""Regimes of the gap: its lower end, generated pairs, its upper end."""


def make_parser(description: str | None, folder: str) -> argparse.ArgumentParser:
    """Return the parser of the benchmarks on Flickr8k.

    Args:
        description: Description of the benchmark.
        folder: Default of the folder of all runs.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(folder), help="all runs; finished ones are kept")
    parser.add_argument("--data", type=Path, default=Path("data/flickr8k"))
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1], help="draws of the photos")
    parser.add_argument("--generators", type=int, nargs="+", default=[0, 1], help="seeds of the generators")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the captioners")
    parser.add_argument("--jobs", type=int, default=2, help="number of commands at a time")
    parser.add_argument("--list", action="store_true", help="print the plan with minutes, and what is finished")
    parser.add_argument("--report", action="store_true", help="train nothing; write the results of finished runs")
    return parser


def list_tasks(
    experiment: Experiment, regimes: Sequence[Regime], points: Mapping[str, Point], cells: Mapping[str, list[Cell]]
) -> list[Task]:
    """Return the tasks of the validated runs at the equal point and at the given points of the regimes."""
    return [
        task
        for regime in regimes
        for point in dict.fromkeys((EQUAL, points[regime.point_of]))
        for cell in cells[regime.name]
        for task in experiment.missing_tasks(regime, point, cell)
    ]


def drop_empty(runs: Runs) -> Runs:
    """Return the regimes that have finished runs."""
    return {name: group for name, group in runs.items() if group}


def compare(runs: Runs, regimes: Sequence[Regime] = (*REGIMES, *PROBES)) -> dict[str, dict[str, Any]]:
    """Return the figures of all regimes, with 95 % intervals of their gains.

    Gains are over ``real``, over the regime's own control, and over the runs that the regime's runs start from.
    """
    figures = {name: summarize(group) for name, group in runs.items()}
    for regime in regimes:
        if (group := runs.get(regime.name)) is None:
            continue
        baselines = {
            "gain": {} if regime.name == "real" else runs.get("real", {}),
            "gain_over_control": runs.get(regime.control, {}),
            "gain_over_start": {cell: run for cell, run in runs.get(regime.start, {}).items() if cell in group},
        }
        for title, other in baselines.items():
            if draws := common_draws(group, other):
                gains = {
                    name: measure_gain(group, other, metric)
                    for name, metric in {"cider": "scores", "rouge_l": "rouge_scores"}.items()
                }
                gains["bleu_4"] = measure_gain(group, other, "bleu_4")[:1]
                figures[regime.name][title] = {"num_draws": len(draws), **gains}
    return figures


def common_draws(*groups: Mapping[Cell, Run]) -> set[int]:
    """Return the draws of the photos that all groups of runs have; only these are compared."""
    return set.intersection(*({cell.draw for cell in group} for group in groups))


def measure_gain(group: Mapping[Cell, Run], other: Mapping[Cell, Run], metric: str = "scores") -> list[float]:
    """Return a mean difference over the common draws and its interval; empty if the two have no draw in common."""
    if not common_draws(group, other):
        return []
    scores = {"ours": scores_of(group, metric), "theirs": scores_of(other, metric)}
    return [round(value, 4) for value in estimate(scores, lambda means: means["ours"] - means["theirs"])]


def closed_gap(runs: Runs) -> list[float]:
    """Return the fraction of the gap from ``real`` to ``photos`` that ``mixed`` closes, and its interval; if known."""
    if not set(_GAP) <= runs.keys():
        return []
    scores = {name: scores_of(runs[name]) for name in _GAP}

    def fraction(means: Means) -> Floats:
        return (means["mixed"] - means["real"]) / (means["photos"] - means["real"])

    return [round(value, 4) for value in estimate(scores, fraction)]


def summarize_choice(choice: Choice) -> dict[str, dict[str, float]]:
    """Return CIDEr on the held-back photos by regime and name of the point, for a JSON file."""
    return {name: {point.name: round(score, 4) for point, score in scores.items()} for name, scores in choice.items()}


def main() -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__, "runs/flickr8k-gain")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in REGIMES], help="train only these regimes")
    args = parser.parse_args()
    experiment = Experiment(args.folder, args.data, max(1, (os.cpu_count() or 1) // args.jobs))
    named = [one for one in REGIMES if not args.only or one.name in args.only]
    choosers = [one for one in REGIMES if one.name in {other.point_of for other in named}]
    cells = {one.name: list_cells(one, args.draws, args.generators, args.seeds) for one in REGIMES}
    choice_tasks = experiment.choice_tasks(choosers)
    if not (args.list or args.report):
        run_tasks(choice_tasks, args.jobs)
    choice = experiment.choose(REGIMES)
    points = {name: best_point(scores) for name, scores in choice.items()}
    if args.list:
        longest = {one.name: GRID[-1] for one in REGIMES} | points
        print_tasks([*choice_tasks, *list_tasks(experiment, named, longest, cells)], args.jobs)
        return
    if not args.report:
        run_tasks(list_tasks(experiment, named, points, cells), args.jobs)
    experiment.archive()
    best = {
        one.name: experiment.read(one, points[one.point_of], cells[one.name])
        for one in REGIMES
        if one.point_of in points
    }
    equal = {one.name: experiment.read(one, EQUAL, cells[one.name]) for one in REGIMES}
    write(choice, points, drop_empty(best), drop_empty(equal))


def write(choice: Choice, points: Mapping[str, Point], best: Runs, equal: Runs) -> None:
    """Write the results."""
    kinds = {"best": best, "equal": equal}
    gaps = {name: closed_gap(runs) for name, runs in kinds.items()}
    genpair = measure_gain(equal.get("written", {}), equal.get("real", {}))
    means = {name: mean(run.cider for run in group.values()) for name, group in best.items()}
    save(
        "flickr8k_gain",
        round(means["mixed"] / means["real"], 4) if {"mixed", "real"} <= means.keys() else None,
        **{f"gap_closed_{name}": gap[0] for name, gap in gaps.items() if gap},
        **{f"gap_closed_{name}_interval": gap[1:] for name, gap in gaps.items() if gap},
        **{
            f"gap_closed_{name}_num_draws": len(common_draws(*(kinds[name][regime] for regime in _GAP)))
            for name, gap in gaps.items()
            if gap
        },
        **dict(zip(("genpair_gain", "genpair_gain_low", "genpair_gain_high"), genpair, strict=False)),
        points={name: asdict(point) for name, point in points.items()},
        equal_point=asdict(EQUAL),
        choice=summarize_choice(choice),
        regimes={name: compare(runs) for name, runs in kinds.items()},
        runs={name: list_runs(runs) for name, runs in kinds.items()},
    )


if __name__ == "__main__":
    main()
