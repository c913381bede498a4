"""CIDEr against the entropy of the captions (Flickr8k): five selections of equal size, from one cluster to even.

Synth² (arXiv 2403.07750) finds that generated pairs help more if their captions are diverse and balanced. The captions
of the withheld photos are grouped into 20 clusters of sentence embeddings. Selections of equal size are taken evenly
from the K largest clusters. Each is added to the 1,000 photos as generated pairs; all else is equal: the point
``EQUAL`` of :mod:`flickr8k_plan`. Printed is Spearman's rank correlation of the selection's entropy with CIDEr.
"""

import json
import os
from dataclasses import asdict

import numpy as np

from flickr8k_gain import compare, drop_empty, make_parser
from flickr8k_plan import EQUAL, SELECTIONS, Regime
from flickr8k_runs import Experiment, list_cells
from intervals import Floats, Means, estimate, rank_correlation
from regimes import list_runs, scores_of
from report import save
from tasks import print_tasks, run_tasks


def main() -> None:
    """Run the benchmark."""
    args = make_parser(__doc__, "runs/flickr8k-gain").parse_args()
    experiment = Experiment(args.folder, args.data, max(1, (os.cpu_count() or 1) // args.jobs))
    regimes = {
        f"selection-{num}": Regime(f"selection-{num}", "", f"selection-{num}", like="mixed") for num in SELECTIONS
    }
    cells = {name: list_cells(one, args.draws, args.generators, args.seeds) for name, one in regimes.items()}
    tasks = [
        task
        for name, regime in regimes.items()
        for cell in cells[name]
        for task in experiment.missing_tasks(regime, EQUAL, cell)
    ]
    if args.list:
        print_tasks(tasks, args.jobs)
        return
    if not args.report:
        run_tasks(tasks, args.jobs)
    experiment.archive()
    runs = drop_empty({name: experiment.read(regime, EQUAL, cells[name]) for name, regime in regimes.items()})
    names = list(runs)
    entropy = {
        name: float(np.mean([_entropy(experiment, draw, name) for draw in {cell.draw for cell in runs[name]}]))
        for name in names
    }

    def correlate(means: Means) -> Floats:
        return rank_correlation(
            np.array([entropy[name] for name in names]), np.stack([means[n] for n in names], axis=1)
        )

    correlation = estimate({name: scores_of(group) for name, group in runs.items()}, correlate)
    figures = compare(runs, list(regimes.values()))
    save(
        "dose_response",
        None,
        rank_correlation=round(correlation.value, 4),
        rank_correlation_interval=[round(correlation.low, 4), round(correlation.high, 4)],
        point=asdict(EQUAL),
        rows=[
            {"num_clusters": num, "entropy": round(entropy[name], 3), **figures[name]}
            for num, name in zip(SELECTIONS, regimes, strict=True)
            if name in runs
        ],
        runs=list_runs(runs),
    )


def _entropy(experiment: Experiment, draw: int, name: str) -> float:
    """Return the entropy of a selection over the clusters of the whole set, in bits."""
    manifest = experiment.chain(draw).folder / "captions" / name / "manifest.json"
    return float(json.loads(manifest.read_text("utf-8"))["balance_after"]["entropy"])


if __name__ == "__main__":
    main()
