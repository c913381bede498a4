"""Gain in CIDEr on held-out combinations from generated pairs (Scenes), with controls.

Some combinations of shape, color and relation occur in no real training image. The generator, which was trained on the
same real images, generates tokens for captions that name them, and the captioner is trained on both. All regimes have
the same number of steps, batch size and real images; CIDEr is measured on the validation images that have such a
combination. ``gain`` is the relative gain: 0.17 is 17 %. Its interval includes captioners and images, not generators:
the pairs are those of one generator.

Two controls measure the gain from the text of the captions: ``blank``, all captions with the same tokens, and
``shuffled``, the generated tokens paired with captions of other images. ``--written`` adds a regime with captions by a
language model (`scenes/captions.yaml`) instead of the grammar's. An interrupted benchmark resumes.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from controls import load_shards, write_blank, write_shuffled
from intervals import Cell, estimate
from regimes import END, Fit, Run, list_runs, read, scores_of, summarize
from report import report, save
from synth2_lightning.scenes.source import ScenesSource
from synth2_lightning.scenes.world import is_held_out
from tasks import Task, print_tasks, run_tasks

NUM_VAL = 1024
SHIPPED = "package://synth2_lightning/scenes/shards"
STEP, START = 0.6, 60.0
"""Estimated seconds of a step on one core, and of start and validation."""


def make_regimes(num_real: int, num_steps: int, shards: str, written: str | None, folder: Path) -> dict[str, list[str]]:
    """Return the arguments of ``synth2 fit`` by regime; writes the shards of the controls."""
    synthetic = load_shards(shards)
    write_blank(folder / "blank", synthetic)
    write_shuffled(folder / "shuffled", synthetic)
    real = "--data.init_args.real.init_args"
    common = [
        *(f"--trainer.max_steps={num_steps}", f"--trainer.val_check_interval={num_steps}"),
        *(f"{real}.train.init_args.num_images={num_real}", f"{real}.val.init_args.num_images={NUM_VAL}"),
        "--trainer.callbacks.every_n_train_steps=100",
    ]
    pairs: dict[str, Path | str] = {"mixed": shards, "blank": folder / "blank", "shuffled": folder / "shuffled"}
    if written is not None:
        pairs["written"] = written
    by = {name: [*common, f"--data.init_args.synthetic.init_args.shards={path}"] for name, path in pairs.items()}
    return {"real": [*common, "--data.init_args.synthetic_fraction.init_args.fraction=0.0"], **by}


def measure(runs: Mapping[str, Mapping[Cell, Run]]) -> dict[str, dict[str, Any]]:
    """Return the figures of all regimes, with their relative gains over ``real`` and the intervals."""
    figures = {name: summarize(group) for name, group in runs.items()}
    for name in runs.keys() - {"real"}:
        scores = {"ours": scores_of(runs[name]), "theirs": scores_of(runs["real"])}
        gain = estimate(scores, lambda means: means["ours"] / means["theirs"] - 1)
        figures[name]["gain"] = [round(value, 4) for value in gain]
    return figures


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/scenes-gain"), help="folder of the runs; finished ones are kept"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--num-real", type=int, default=8192, help="real images; the included generator was trained on 8,192"
    )
    parser.add_argument("--num-steps", type=int, default=600)
    parser.add_argument("--shards", default=SHIPPED, help="generated pairs (default: %(default)s)")
    parser.add_argument("--written", help="scored, generated pairs with captions by a language model")
    parser.add_argument("--only", nargs="+", help="train only these regimes")
    parser.add_argument("--jobs", type=int, default=2, help="number of parallel runs")
    parser.add_argument("--list", action="store_true", help="print the runs with minutes, and what is finished")
    parser.add_argument("--quick", action="store_true", help="one seed, ten steps, no controls: a smoke test")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.num_steps, args.folder = [0], 10, Path(tempfile.mkdtemp())
        args.only = ["real", "mixed"]
    regimes = make_regimes(args.num_real, args.num_steps, args.shards, args.written, args.folder / "shards")
    num_threads = max(1, (os.cpu_count() or 1) // args.jobs)
    fits = {
        (name, seed): Fit(args.folder / name / f"seed-{seed}", "mixed.yaml", words, seed, num_threads)
        for seed in args.seeds
        for name, words in regimes.items()
    }
    minutes = (args.num_steps * STEP + START) / 60
    tasks: list[Task] = [
        fit.task(f"{name}, seed {seed}", minutes)
        for (name, seed), fit in fits.items()
        if not args.only or name in args.only
    ]
    if args.list:
        print_tasks(tasks, args.jobs)
        return
    run_tasks(tasks, args.jobs)
    source = ScenesSource("val", NUM_VAL)
    held_out = {source.key(index) for index in range(NUM_VAL) if is_held_out(source.scene(index).content)}

    def collect(keep: Callable[[str], bool]) -> dict[str, dict[Cell, Run]]:
        runs: dict[str, dict[Cell, Run]] = {}
        for (name, seed), fit in fits.items():
            if (fit.folder / END).exists():
                runs.setdefault(name, {})[Cell(0, 0, seed)] = read(fit.folder, keep)
        return runs

    runs = {"held_out": collect(held_out.__contains__), "in_training": collect(lambda key: key not in held_out)}
    if {"real", "mixed"} - runs["held_out"].keys():
        raise SystemExit("Finished runs of real or mixed are missing; expected both. Nothing is reported.")
    figures = {title: measure(group) for title, group in runs.items()}
    gain = figures["held_out"]["mixed"]["gain"]
    (report if args.quick else save)(
        "scenes_gain",
        round(1 + gain[0], 4),
        **dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True)),
        num_real=args.num_real,
        num_steps=args.num_steps,
        num_held_out=len(held_out),
        **figures,
        runs={title: list_runs(group) for title, group in runs.items()},
    )


if __name__ == "__main__":
    main()
