"""``synth2 init``."""

from importlib.util import find_spec
from pathlib import Path

from synth2_lightning.io.console import MessageConsole


def init(data: str, *, out: Path = Path("my_photos")) -> None:
    """Find the photos and captions in a folder, and write a run file for them.

    It reads COCO captions JSON, Karpathy's JSON, tables (CSV, TSV, JSON Lines, Parquet), tars of images and captions,
    Parquet files with images, and images with text files. Without a validation split, a tenth of the photos is held
    out.

    Args:
        data: Folder with images and captions, or an index file with the images below its folder.
        out: Folder to write to: the run file photos.yaml, and images.png, a grid of the first photos.

    Example:
        synth2 init data/ --out my_photos
    """
    from synth2_lightning.io.locations import resolve

    resolve(data, "data")  # before the slow imports
    from synth2_lightning.reports.photo_set import GRID, RUN_FILE, write_run_file

    lines = write_run_file(data, out)
    console = MessageConsole()
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"First photos of the training: {out / GRID}\n\nTrain and caption:", soft_wrap=True, markup=False)
    if find_spec("gguf") is None:
        console.print('  pip install "synth2-lightning[captions]"', markup=False)
    console.print(f"  synth2 fit --config photos.yaml --config {out / RUN_FILE}", soft_wrap=True, markup=False)
    console.print("  synth2 caption runs/version_0 IMAGES --out captions.jsonl", soft_wrap=True, markup=False)
