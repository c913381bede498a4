"""Gain in CIDEr on held-out combinations from generated pairs (Scenes), with controls.

Some combinations of shape, color and relation occur in no real training image. The generator, which was trained on the
same real images, generates tokens for captions that name them, and the captioner is trained on both. Synth² (arXiv
2403.07750) reports a gain of 17 % from such pairs. All regimes have the same number of steps, batch size and real
images; CIDEr is measured on the validation images that have such a combination.

Two controls measure the gain from the text of the captions: ``blank``, all captions with the same tokens, and
``shuffled``, the generated tokens paired with captions of other images. ``--written`` adds a regime with captions by a
language model (`scenes/captions.yaml`) instead of the grammar's.
"""

import argparse
import tempfile
from pathlib import Path

from regimes import Regime, ended, read, show, train, write_text_controls
from report import report
from synth2_lightning.scenes.source import ScenesSource
from synth2_lightning.scenes.world import is_held_out
from synth2_lightning.shards.reader import ShardReader

NUM_VAL = 1024
SHIPPED = "package://synth2_lightning/scenes/shards"


def make_regimes(num_real: int, num_steps: int, shards: str, written: str | None, folder: Path) -> list[Regime]:
    """Return the regimes: real images only; half of every batch from shards; the controls; other captions."""
    synthetic = ShardReader(shards)
    synthetic.load()
    write_text_controls(folder, synthetic)
    common = (f"--trainer.max_steps={num_steps}", f"--trainer.val_check_interval={num_steps}")
    real = "--data.init_args.real.init_args"
    sizes = (f"{real}.train.init_args.num_images={num_real}", f"{real}.val.init_args.num_images={NUM_VAL}")
    mixed = ("--config", "mixed.yaml", *common, *sizes)
    none = "--data.init_args.synthetic_fraction.init_args.fraction=0.0"
    pairs: dict[str, Path | str] = {"mixed": shards, "blank": folder / "blank", "shuffled": folder / "shuffled"}
    if written is not None:
        pairs["written"] = written
    by = {name: (*mixed, f"--data.init_args.synthetic.init_args.shards={path}") for name, path in pairs.items()}
    return [Regime("real", (*mixed, none)), *(Regime(name, words) for name, words in by.items())]


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
    parser.add_argument("--quick", action="store_true", help="one seed, ten steps, no controls: a smoke test")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.num_steps, args.folder = [0], 10, Path(tempfile.mkdtemp())
        args.only = ["real", "mixed"]
    regimes = make_regimes(args.num_real, args.num_steps, args.shards, args.written, args.folder / "shards")
    train([one for one in regimes if not args.only or one.name in args.only], args.seeds, args.folder, args.jobs)
    source = ScenesSource("val", NUM_VAL)
    held_out = {source.key(index) for index in range(NUM_VAL) if is_held_out(source.scene(index).content)}
    figures, ratios = {}, {}
    for title, keep in (("held out", held_out.__contains__), ("in training", lambda key: key not in held_out)):
        runs = {
            one.name: [read(one.name, s, args.folder, keep) for s in args.seeds if ended(args.folder, one.name, s)]
            for one in regimes
        }
        runs = {name: group for name, group in runs.items() if group}
        if {"real", "mixed"} - runs.keys():
            raise SystemExit("Finished runs of real or mixed are missing; expected both. Nothing is reported.")
        figures[title] = show(f"Scenes, combinations {title}", runs, "real")
        means = {name: sum(run.cider for run in group) / len(group) for name, group in runs.items()}
        ratios[title] = round(means["mixed"] / means["real"], 4)
    report(
        "scenes_gain",
        ratios["held out"],
        ratio_in_training=ratios["in training"],
        num_real=args.num_real,
        num_steps=args.num_steps,
        seeds=args.seeds,
        num_held_out=len(held_out),
        held_out=figures["held out"],
        in_training=figures["in training"],
    )


if __name__ == "__main__":
    main()
