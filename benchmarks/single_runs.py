"""CIDEr of single runs of included run files: Scenes; Flickr8k with all or few photos, or a frozen LM.

One run each, seed 0: other seeds will differ. An interrupted benchmark resumes. Run it in the folder of
``data/flickr8k``, after ``synth2 weights efficientnet-lite0 smollm2-135m-instruct``.
"""

import argparse
import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from intervals import Cell
from regimes import END, Fit, read, summarize
from report import save
from tasks import Task, print_tasks, run_command, run_tasks

_OVERLAYS = "experiments/flickr8k/overlays"
_ALL = (f"{_OVERLAYS}/all.yaml",)
_AVERAGED = "overlays/trainer/weight_averaging.yaml"


@dataclass(frozen=True)
class SingleRun:
    """One run of ``mixed.yaml``.

    Args:
        name: Name of its folder.
        data: Description of the training and validation images.
        overlays: Overlays on ``mixed.yaml``.
        minutes: Estimated minutes on one core.
    """

    name: str
    data: str
    overlays: tuple[str, ...]
    minutes: float


RUNS = (
    SingleRun("scenes", "Scenes; 512 for validation, some with held-out combinations", (), 6),
    SingleRun("all", "6,000 photos; 1,000 for validation", (*_ALL, _AVERAGED), 14),
    SingleRun(
        "first-1000", "1,000 photos; 1,000 for validation", (*_ALL, f"{_OVERLAYS}/first_1000.yaml", _AVERAGED), 7
    ),
    SingleRun("prefix", "6,000 photos; 256 for validation", (*_ALL, f"{_OVERLAYS}/smollm2_prefix.yaml"), 40),
    SingleRun("cross", "6,000 photos; 256 for validation", (*_ALL, f"{_OVERLAYS}/smollm2_cross.yaml"), 40),
)


def make_tasks(folder: Path, num_threads: int) -> list[Task]:
    """Return the tasks: vocabulary, codebook and tokens of all photos, then the runs."""
    folder = folder.absolute()
    marks = folder / "finished"

    def command(name: str, *words: str) -> partial[None]:
        return partial(run_command, words, folder / "logs" / f"{name}.txt", num_threads, folder)

    def link(name: str, target: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(os.path.relpath(target, (folder / name).parent))

    words = ("vocabulary", "data/flickr8k/captions_train.json", "--out", "runs/flickr8k/vocabulary")
    overlay = ("--config", f"{_OVERLAYS}/codebook.yaml")
    fit = Fit(folder / "fits" / "codebook", "tokenizer.yaml", overlay, 0, num_threads, working_folder=folder)
    tokenize = ("predict", "--config", "tokenize.yaml", "--config", f"{_OVERLAYS}/tokenize.yaml")
    tasks = [
        Task("data", marks / "data", 0, partial(link, "data", Path("data").absolute())),
        Task("vocabulary", marks / "vocabulary", 1, command("vocabulary", *words), ("data",)),
        fit.task("training of the codebook", 7, ("data",)),
        Task("tokens", marks / "tokens", 4, command("tokens", *tokenize), ("training of the codebook",)),
    ]
    for run in RUNS:
        overlays = [word for overlay in run.overlays for word in ("--config", overlay)]
        needs = ("vocabulary", "tokens") if run.overlays else ("data",)
        captioner = Fit(run_folder(folder, run), "mixed.yaml", overlays, 0, num_threads, working_folder=folder)
        tasks.append(captioner.task(run.name, run.minutes, needs))
    return tasks


def run_folder(folder: Path, run: SingleRun) -> Path:
    """Return the folder of a run."""
    return folder / "captioners" / run.name


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/single-runs"), help="finished runs are kept")
    parser.add_argument("--only", nargs="+", choices=[run.name for run in RUNS], help="train only these")
    parser.add_argument("--jobs", type=int, default=2, help="number of commands at a time")
    parser.add_argument("--list", action="store_true", help="print the plan with minutes, and what is finished")
    args = parser.parse_args()
    tasks = make_tasks(args.folder, max(1, (os.cpu_count() or 1) // args.jobs))
    left_out = {run.name for run in RUNS if args.only and run.name not in args.only}
    tasks = [task for task in tasks if task.name not in left_out]
    if args.only == ["scenes"]:  # which needs no photos
        tasks = [task for task in tasks if task.name in ("data", "scenes")]
    if args.list:
        print_tasks(tasks, args.jobs)
        return
    run_tasks(tasks, args.jobs)
    rows = []
    for run in RUNS:
        folder = run_folder(args.folder, run)
        if (folder / END).exists():
            scores = read(folder)
            card = folder / "cider" / f"val-step={scores.num_steps}" / "protocol.json"
            human = json.loads(card.read_text("utf-8"))["human_score"]
            figures = summarize({Cell(0, 0, 0): scores})
            name = {"name": run.name, "data": run.data, "overlays": run.overlays, "num_steps": scores.num_steps}
            rows.append({**name, "human_score": human, **figures})
    save("single_runs", None, rows=rows)


if __name__ == "__main__":
    main()
