"""How many real photos equal N real photos and generated pairs (Flickr8k), for several N.

Codebook, generator and captioner are trained on N photos; the captions of the other photos, of 5,500, are generated
pairs. All captioners have the point ``EQUAL`` of :mod:`flickr8k_plan`. The curve of real photos alone is interpolated
in log N.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from statistics import mean

from flickr8k_gain import drop_empty, make_parser, measure_gain
from flickr8k_plan import EQUAL, NUM_REAL, REGIMES, SIZES, Regime
from flickr8k_runs import Experiment, list_cells
from intervals import Cell
from regimes import Run, list_runs, summarize
from report import save
from tasks import print_tasks, run_tasks

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
    cells = {regime: list_cells(regime, args.draws, args.generators, args.seeds) for _, regime, _ in rows}
    tasks = [
        task
        for _, regime, experiment in rows
        for cell in cells[regime]
        for task in experiment.missing_tasks(regime, EQUAL, cell)
    ]
    if args.list:
        print_tasks(tasks, args.jobs)
        return
    if not args.report:
        run_tasks(tasks, args.jobs)
    experiments[NUM_REAL].archive()
    write({f"{regime.name}-{size}": experiment.read(regime, EQUAL, cells[regime]) for size, regime, experiment in rows})


def write(results: Mapping[str, Mapping[Cell, Run]]) -> None:
    """Write the results: a row for each N, and the number of real photos that equal N and its generated pairs."""
    runs = drop_empty(results)
    means = {name: mean(run.cider for run in group.values()) for name, group in runs.items()}
    sizes = [size for size in SIZES if f"real-{size}" in runs]
    curve = {size: means[f"real-{size}"] for size in sizes} | {_ALL: means[f"photos-{_ALL}"]}
    rows = []
    for size in sizes:
        real, mixed = runs[f"real-{size}"], runs.get(f"mixed-{size}")
        row = {"num_photos": size, "real": summarize(real)}
        if mixed:
            equals = equivalent(curve, means[f"mixed-{size}"])
            row |= {"mixed": summarize(mixed), "gain": measure_gain(mixed, real), "equals": equals}
        rows.append(row)
    photos = {"num_photos": _ALL, **summarize(runs[f"photos-{_ALL}"])}
    save("label_multiplier", None, point=asdict(EQUAL), rows=rows, photos=photos, runs=list_runs(runs))


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
