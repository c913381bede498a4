"""How many real photos equal N real photos and generated pairs (Flickr8k), for several N.

Codebook, generator and captioner are trained on N photos; the captions of the other photos, of 5,500, are generated
pairs. The curve of real photos alone is interpolated in log N. Length and regularization are chosen for each N on
held-back training photos, as in ``flickr8k_gain.py``.
"""

import math
import os
from collections.abc import Mapping
from itertools import pairwise
from statistics import mean

from flickr8k_gain import drop_empty, make_parser, measure_gain, summarize_choice
from flickr8k_plan import GRID, NUM_REAL, REGIMES, SIZES, Regime
from flickr8k_runs import Experiment, best_point, list_cells
from intervals import Cell
from regimes import Run, list_runs, summarize
from report import save
from tasks import Task, print_tasks, run_tasks

_REAL, _MIXED, _PHOTOS = (next(one for one in REGIMES if one.name == name) for name in ("real", "mixed", "photos"))
_ALL = 5500


def main() -> None:
    """Run the benchmark."""
    args = make_parser(__doc__, "runs/flickr8k-gain").parse_args()
    num_threads = max(1, (os.cpu_count() or 1) // args.jobs)
    experiments = {size: Experiment(args.folder, args.data, num_threads, size) for size in SIZES}
    # All photos are the same for each N, but the tokens of N = 1,000 are used.
    rows: list[tuple[int, Regime, Experiment]] = [
        *((size, regime, one) for size, one in experiments.items() for regime in (_REAL, _MIXED)),
        (_ALL, _PHOTOS, experiments[NUM_REAL]),
    ]
    tasks: list[Task] = [task for _, regime, experiment in rows for task in experiment.choice_tasks([regime], GRID)]
    if not args.list:
        run_tasks(tasks, args.jobs)
    choices = [experiment.choose([regime], GRID) for _, regime, experiment in rows]
    points = [best_point(choice[name]) for choice in choices for name in choice]
    if args.list:
        points = [GRID[-1]] * len(rows)
    cells = [list_cells(regime, args.draws, args.generators, args.seeds) for _, regime, _ in rows]
    runs = [
        task
        for (_, regime, experiment), point, seeds in zip(rows, points, cells, strict=True)
        for cell in seeds
        for task in experiment.missing_tasks(regime, point, cell)
    ]
    if args.list:
        print_tasks([*tasks, *runs], args.jobs)
        return
    run_tasks(runs, args.jobs)
    experiments[NUM_REAL].archive()
    results = {
        f"{regime.name}-{size}": experiment.read(regime, point, seeds)
        for (size, regime, experiment), point, seeds in zip(rows, points, cells, strict=True)
    }
    write(
        results,
        {f"{row[1].name}-{row[0]}": summarize_choice(choice) for row, choice in zip(rows, choices, strict=True)},
    )


def write(results: Mapping[str, Mapping[Cell, Run]], choice: Mapping[str, object]) -> None:
    """Write the results: a row for each N, and the number of real photos that equal N and its generated pairs."""
    runs = drop_empty(results)
    means = {name: mean(run.cider for run in group.values()) for name, group in runs.items()}
    curve = {size: means[f"real-{size}"] for size in SIZES} | {_ALL: means[f"photos-{_ALL}"]}
    rows = [
        {
            "num_photos": size,
            "real": summarize(runs[f"real-{size}"]),
            "mixed": summarize(runs[f"mixed-{size}"]),
            "gain": measure_gain(runs[f"mixed-{size}"], runs[f"real-{size}"]),
            "equals": equivalent(curve, means[f"mixed-{size}"]),
        }
        for size in SIZES
    ]
    photos = {"num_photos": _ALL, **summarize(runs[f"photos-{_ALL}"])}
    save("label_multiplier", None, rows=rows, photos=photos, choice=choice, runs=list_runs(runs))


def equivalent(curve: Mapping[int, float], score: float) -> int | None:
    """Return the number of real photos that reach a score, interpolated in log N; ``None`` outside of the curve.

    Args:
        curve: Score by number of photos.
        score: Score to reach.

    Example:
        >>> equivalent({100: 0.2, 1000: 0.4, 10000: 0.5}, 0.45)
        3162
    """
    sizes = sorted(curve)
    for low, high in pairwise(sizes):
        if curve[low] <= score <= curve[high] and curve[low] < curve[high]:
            place = (score - curve[low]) / (curve[high] - curve[low])
            return round(math.exp(math.log(low) + place * math.log(high / low)))
    return None


if __name__ == "__main__":
    main()
