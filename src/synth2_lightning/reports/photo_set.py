"""A run file for photos with captions, made from a folder of any known layout."""

import json
import shlex
from pathlib import Path
from zlib import crc32

import yaml
from PIL import Image

from synth2_lightning.io.atomic import write_files
from synth2_lightning.reports.experiment import write_experiment
from synth2_lightning.sources.base import ArrowSource, Entry, IndexedSource, SkipCounter, check_entry
from synth2_lightning.sources.images import center_crop
from synth2_lightning.sources.layouts import SourceSpec, find_layout
from synth2_lightning.sources.table import TableSource

RUN_FILE, GRID = "photos.yaml", "images.png"
_BATCH_SIZE = 32  # of the included photos.yaml
_MAX_HELD_OUT = 1000
_TILE, _NUM_COLUMNS, _NUM_TILES = 160, 6, 18


def write_run_file(location: str, out: Path, experiment: Path | None = None) -> list[str]:
    """Write a run file for the photos of a folder, and a grid of the first ones.

    The run file has the data only: it is an overlay on ``photos.yaml``. If the data have no validation split, a
    tenth of the photos, at most 1,000, is held out, and both parts are written as tables.

    Args:
        location: Folder of the data, or an index file.
        out: Folder to write to.
        experiment: Folder of an experiment with synthetic pairs, whose run files are written for these photos, too.

    Returns:
        One line for each split: layout, number of photos and captions; and one for each source that is not used.

    Raises:
        FileExistsError: If there is a run file.
        FileNotFoundError: If there are no photos with captions.
        OSError: If an image cannot be read.
        ValueError: If the folder is the current one, an index is damaged, the photos cannot be split, or the run files
            of the experiment cannot have the name of the folder.
    """
    if out.absolute() == Path.cwd():
        raise ValueError(
            f"{out} is the current folder; expected another one (--out), because {RUN_FILE} in it would replace the "
            "included run file of that name."
        )
    if (out / RUN_FILE).exists():
        raise FileExistsError(
            f"{out / RUN_FILE} exists; expected a new folder. Name another one (--out), or delete it."
        )
    layout = find_layout(location)
    train, val = (layout.train, layout.val) if layout.val else _hold_out(layout.train, out)
    splits = {"train": (train, train.build()), "val": (val, val.build())}
    lines = []
    for name, (spec, source) in splits.items():
        source.load()
        lines.append(f"{name}: {len(source)} photos, {source.count_captions().sum()} captions ({spec.layout})")
    lines += [f"not used: {spec.layout}" for spec in layout.unused]
    sources = {name: spec.to_settings() for name, (spec, _) in splits.items()}
    data = {"init_args": {**sources, "batch_size": min(_BATCH_SIZE, len(splits["train"][1]))}}
    if experiment is not None:
        write_experiment(experiment, out, {name: spec for name, (spec, _) in splits.items()})
    head = f"# Photos of {location}: synth2 fit --config photos.yaml --config {shlex.quote(str(out / RUN_FILE))}\n"
    with write_files(out) as draft:
        _draw(splits["train"][1]).save(draft / GRID)
        (draft / RUN_FILE).write_text(
            head + yaml.safe_dump({"data": data}, sort_keys=False, allow_unicode=True), "utf-8"
        )
    return lines


def _hold_out(spec: SourceSpec, out: Path) -> tuple[SourceSpec, SourceSpec]:
    """Write tables of the training and the validation photos, in an order that the names of the photos determine."""
    source = spec.build()
    if not isinstance(source, IndexedSource):
        raise ValueError(f"{spec.layout} cannot be split; expected at least two tars, of which one is for validation.")
    skipped = SkipCounter()
    checked = [check_entry(entry, skipped) for entry in source.read_index(skipped)]
    skipped.warn(spec.layout)
    photos = sorted((entry for entry in checked if entry is not None), key=lambda entry: crc32(entry.key.encode()))
    if len(photos) < 2:
        raise ValueError(f"There are {len(photos)} photos in {spec.layout}; expected two or more, one for validation.")
    num_held_out = min(_MAX_HELD_OUT, max(1, len(photos) // 10))
    parts = {"val": photos[:num_held_out], "train": photos[num_held_out:]}
    with write_files(out) as draft:
        for name, entries in parts.items():
            (draft / f"{name}.jsonl").write_text("".join(map(_to_rows, entries)), "utf-8")
    train, val = (
        SourceSpec(TableSource, {"table": str(out / f"{name}.jsonl"), "images": ".", "name": "photos"}, spec.layout)
        for name in ("train", "val")
    )
    return train, val


def _to_rows(entry: Entry) -> str:
    rows = ({"file_name": entry.location, "caption": caption} for caption in entry.captions)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _draw(source: ArrowSource) -> Image.Image:
    """Return a grid of the first photos."""
    tiles = [center_crop(source.image(index), _TILE) for index in range(min(_NUM_TILES, len(source)))]
    num_rows = -(-len(tiles) // _NUM_COLUMNS)
    grid = Image.new("RGB", (_TILE * min(_NUM_COLUMNS, len(tiles)), _TILE * num_rows), "white")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, _NUM_COLUMNS)
        grid.paste(tile, (_TILE * column, _TILE * row))
    return grid
