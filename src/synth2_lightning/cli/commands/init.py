"""``synth2 init``."""

import shlex
from importlib.util import find_spec
from pathlib import Path

from synth2_lightning.io.console import MessageConsole

_COMMANDS = (
    ("fit", "codebook.yaml", "codes of image features"),
    ("predict", "tokenize.yaml", "image tokens of the photos"),
    ("fit", "generator.yaml", "captions to image tokens"),
    ("predict", "synthesize.yaml", "image tokens of the captions without photos"),
    ("fit", "real.yaml", "a captioner of the photos, for comparison"),
    ("fit", "mixed.yaml", "a captioner of photos and synthetic pairs"),
)
"""Commands of an experiment with synthetic pairs, in order."""


def init(data: str, *, out: Path = Path("my_photos"), synthetic: bool = False) -> None:
    """Find the photos and captions in a folder, and write run files for them.

    It reads COCO captions JSON, Karpathy's JSON, tables (CSV, TSV, JSON Lines, Parquet), tars of images and captions,
    Parquet files with images, and images with text files. Without a validation split, a tenth of the photos, at
    most 1,000, is held out.

    Args:
        data: Folder with images and captions, or an index file with the images below its folder.
        out: Folder to write to: the run file photos.yaml, and images.png, a grid of the first photos.
        synthetic: Whether to write the run files of synthetic pairs as well: from a codebook of image tokens to a
            captioner of both.

    Example:
        synth2 init data/ --out my_photos
    """
    from synth2_lightning.io.locations import resolve

    resolve(data, "data")  # before the slow imports
    from synth2_lightning.cli.run_files import run_file_folder
    from synth2_lightning.reports.experiment import CAPTIONS
    from synth2_lightning.reports.photo_set import GRID, RUN_FILE, write_run_file

    experiment = run_file_folder() / "experiments" / "flickr8k" if synthetic else None
    lines = write_run_file(data, out, experiment)
    console = MessageConsole()
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"First photos of the training: {out / GRID}\n\nTrain and caption:", soft_wrap=True, markup=False)
    if find_spec("gguf") is None:
        console.print('  pip install "synth2-lightning[captions]"', markup=False)
    run_file = shlex.quote(str(out / RUN_FILE))
    console.print(f"  synth2 fit --config photos.yaml --config {run_file}", soft_wrap=True, markup=False)
    console.print("  synth2 caption runs/version_0 IMAGES --out captions.jsonl", soft_wrap=True, markup=False)
    if synthetic:
        console.print(
            f"\nWith synthetic pairs, for captions without photos in {out / CAPTIONS} (one per row, column caption):",
            soft_wrap=True,
            markup=False,
        )
        for command, file, comment in _COMMANDS:
            run_file = shlex.quote(str(out / file))
            console.print(f"  synth2 {command} --config {run_file}  # {comment}", soft_wrap=True, markup=False)
