"""Do pairs that nobody drew help a captioner to describe what it never saw together? On Scenes.

Some combinations of shape, colour and relation occur in no real picture to learn from. Captions can name them; the
generator, which has learnt from the same real pictures, draws their tokens; the captioner learns from both. Synth²
(arXiv 2403.07750) says that such pairs add 17 per cent. Every regime takes the same number of steps of the same batch
size over the same real pictures, and is judged by the pictures of the validation split that hold such a combination.

Two controls tell what the captions alone bring, in which those combinations can be read: ``blank`` has the same grid of
tokens beside every caption, ``shuffled`` the generated tokens, dealt out anew over the captions. With ``--written``, a
regime more: the captions are those that a language model wrote (`scenes/captions.yaml`), not the grammar's.
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
    """Real pictures alone; half of every batch from shards; the same with the tokens of the controls, and of others."""
    synthetic = ShardReader(shards)
    synthetic.load()
    write_text_controls(folder, synthetic)
    common = (f"--trainer.max_steps={num_steps}", f"--trainer.val_check_interval={num_steps}")
    real = "--data.init_args.real.init_args"
    few = (f"{real}.train.init_args.num_pictures={num_real}", f"{real}.val.init_args.num_pictures={NUM_VAL}")
    mixed = ("--config", "mixed.yaml", *common, *few)
    none = "--data.init_args.synthetic_share.init_args.share=0.0"
    pairs: dict[str, Path | str] = {"mixed": shards, "blank": folder / "blank", "shuffled": folder / "shuffled"}
    if written is not None:
        pairs["written"] = written
    by = {name: (*mixed, f"--data.init_args.synthetic.init_args.shards={path}") for name, path in pairs.items()}
    return [Regime("real", (*mixed, none)), *(Regime(name, words) for name, words in by.items())]


def main() -> None:
    """Train, read, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/scenes-gain"), help="where runs go, and are found")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num-real", type=int, default=8192, help="real pictures; the shipped generator knew 8,192")
    parser.add_argument("--num-steps", type=int, default=600)
    parser.add_argument("--shards", default=SHIPPED, help="generated pairs (default: %(default)s)")
    parser.add_argument("--written", help="generated pairs of captions that a language model wrote, scored")
    parser.add_argument("--only", nargs="+", help="train these regimes alone")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--quick", action="store_true", help="one seed, ten steps, no controls: shows that it runs")
    asked = parser.parse_args()
    if asked.quick:
        asked.seeds, asked.num_steps, asked.folder = [0], 10, Path(tempfile.mkdtemp())
        asked.only = ["real", "mixed"]
    regimes = make_regimes(asked.num_real, asked.num_steps, asked.shards, asked.written, asked.folder / "shards")
    train([one for one in regimes if not asked.only or one.name in asked.only], asked.seeds, asked.folder, asked.jobs)
    world = ScenesSource("val", NUM_VAL)
    held_out = {world.key(index) for index in range(NUM_VAL) if is_held_out(world.scene(index).content)}
    figures, ratios = {}, {}
    for title, keep in (("held out", held_out.__contains__), ("in training", lambda key: key not in held_out)):
        runs = {
            one.name: [read(one.name, s, asked.folder, keep) for s in asked.seeds if ended(asked.folder, one.name, s)]
            for one in regimes
        }
        runs = {name: group for name, group in runs.items() if group}
        if {"real", "mixed"} - runs.keys():
            raise SystemExit("Without ended runs of real and mixed there is no figure to report.")
        figures[title] = show(f"Scenes, combinations {title}", runs, "real")
        means = {name: sum(run.cider for run in group) / len(group) for name, group in runs.items()}
        ratios[title] = round(means["mixed"] / means["real"], 4)
    report(
        "scenes_gain",
        ratios["held out"],
        ratio_in_training=ratios["in training"],
        num_real=asked.num_real,
        num_steps=asked.num_steps,
        seeds=asked.seeds,
        num_held_out=len(held_out),
        held_out=figures["held out"],
        in_training=figures["in training"],
    )


if __name__ == "__main__":
    main()
