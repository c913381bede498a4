"""CIDEr of single changes to the generated pairs of Flickr8k on held-back training photos, to choose among them.

Each change runs at the point ``EQUAL`` of :mod:`flickr8k_plan` and is compared with its regime without the change.
Validation photos are not read: a change that is worth
it becomes part of the plan, and ``flickr8k_gain.py`` measures it there. An interrupted benchmark resumes.
"""

import os
from dataclasses import asdict

from flickr8k_gain import compare, make_parser, measure_gain
from flickr8k_plan import EQUAL, PROBES, REGIMES
from flickr8k_runs import Experiment, list_cells
from regimes import list_runs
from report import save
from tasks import print_tasks, run_tasks

# Baselines, and changes that are in the plan by now.
_REGIMES = ("real", "mixed", "blank", "written", "written-draws", "written-varied")


def main() -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__, "runs/flickr8k-gain")
    parser.set_defaults(draws=[0], generators=[0], seeds=[0])
    known = {one.name: one for one in (*REGIMES, *PROBES)}
    names = [*_REGIMES, *(one.name for one in PROBES)]
    parser.add_argument("--only", nargs="+", choices=known, default=names, help="regimes and changes to run")
    args = parser.parse_args()
    experiment = Experiment(args.folder, args.data, max(1, (os.cpu_count() or 1) // args.jobs))
    cells = {name: list_cells(one, args.draws, args.generators, args.seeds) for name, one in known.items()}
    tasks = [
        task
        for name in args.only
        for cell in cells[name]
        for task in experiment.missing_tasks(known[name], EQUAL, cell, is_validated=False)
    ]
    if args.list:
        print_tasks(tasks, args.jobs)
        return
    if not args.report:
        run_tasks(tasks, args.jobs)
    experiment.archive()
    runs = {name: experiment.read(known[name], EQUAL, cells[name], is_validated=False) for name in args.only}
    runs = {name: group for name, group in runs.items() if group}
    figures = compare(runs)
    for name, group in runs.items():
        if gain := measure_gain(group, runs.get(known[name].like, {})):
            figures[name]["gain_of_change"] = gain
    save("flickr8k_probes", None, point=asdict(EQUAL), regimes=figures, runs=list_runs(runs))


if __name__ == "__main__":
    main()
