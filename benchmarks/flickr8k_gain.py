"""Gain in CIDEr from generated pairs with few photos (Flickr8k), with controls.

A captioner is trained on 1,000 photos; of 5,000 other photos only the captions are used. A generator that was trained
on the same 1,000 photos generates tokens for these captions (SynthPair of Synth², arXiv 2403.07750). The codebook of
captioner and generator was trained on the 1,000 photos, too. CIDEr is measured on the 1,000 photos of the validation
split, at the last step, without checkpoint selection.

Regimes besides ``real`` (1,000 photos only) and ``mixed`` (half of every batch is generated):

* ``blank``: the same captions, all with the same tokens: the gain from text alone;
* ``shuffled``: the generated tokens, paired with captions of other images;
* ``nearest``: the tokens of the photo among the 1,000 with the most similar caption (by MiniLM);
* ``photos``: all 6,000 photos, the upper bound;
* ``continuous``: 1,000 photos with unquantized features;
* ``mixed-2``: a generator of another seed; ``mixed-own``: a generator whose text encoder was trained on the captions of
  the 1,000 photos only;
* ``captions``: captions by a language model, of words in the captions of the 1,000 (GenPair of Synth²); ``beginnings``:
  continuations of the first four words of these captions; ``captions-blank`` and ``beginnings-blank``: the same
  captions, all with the same tokens; ``beginnings-first``: a synthetic fraction that falls from three quarters to zero,
  so that training ends on human captions;
* ``mixed-equal``: as many human captions as ``beginnings`` has captions;
* ``balanced`` and ``narrow``: selections of ``beginnings`` of equal size, balanced over all clusters of sentence
  embeddings, and from the largest clusters only.

Run it in the folder of ``data/flickr8k``, after the commands of ``configs/experiments/flickr8k/README.md``.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from regimes import ROWS, Regime, ended, read, show, train, write_control, write_text_controls
from report import report
from synth2_lightning.encoders.text import PretrainedTextEncoder
from synth2_lightning.shards.manifest import Manifest
from synth2_lightning.shards.reader import ShardReader

REAL, SYNTHETIC = Path("shards/flickr8k-tokens"), Path("shards/flickr8k-synthetic")
WRITTEN, CONTINUED = Path("shards/flickr8k-captions"), Path("shards/flickr8k-beginnings")
NUM_REAL = 1000
_LAST = "--trainer.val_check_interval=800"  # all steps of experiments/flickr8k/trainer.yaml
_BASELINES = ("real", "blank", "beginnings-blank", "narrow")
_FRACTION = "--data.init_args.synthetic_fraction"
_FALLING = (
    f"{_FRACTION}=LinearFraction",
    *(f"{_FRACTION}.init_args.{it}" for it in ("start=0.75", "end=0.0", "num_steps=800")),
)
_CONTINUOUS = "--model.init_args.image_encoder.init_args.quantize_pixels=false"


def make_regimes(folder: Path) -> list[Regime]:
    """Return all regimes whose shards exist; report the others."""
    shards = {
        "mixed": SYNTHETIC,
        "blank": folder / "shards" / "blank",
        "shuffled": folder / "shards" / "shuffled",
        "nearest": folder / "shards" / "nearest",
        "mixed-2": Path(f"{SYNTHETIC}-2"),
        "mixed-own": Path(f"{SYNTHETIC}-own"),
        "captions": WRITTEN,
        "captions-blank": folder / "shards" / "written" / "blank",
        "beginnings": CONTINUED,
        "beginnings-blank": folder / "shards" / "continued" / "blank",
        "balanced": Path("shards/flickr8k-balanced"),
        "narrow": Path("shards/flickr8k-narrow"),
    }
    real = ("--config", "experiments/flickr8k/real.yaml", _LAST)
    regimes = [Regime("real", real), Regime("photos", (*real, "--data.init_args.photos=null"))]
    for name, path in shards.items():
        if (path / "manifest.json").exists():
            option = f"--data.init_args.synthetic.init_args.shards={path}"
            regimes.append(Regime(name, ("--config", "experiments/flickr8k/mixed.yaml", _LAST, option)))
        else:
            print(f"{name} is skipped: {path} has no finished shards", flush=True)
    if (CONTINUED / "manifest.json").exists() and (SYNTHETIC / "manifest.json").exists():
        option = f"--data.init_args.synthetic.init_args.shards={CONTINUED}"
        regimes.append(
            Regime("beginnings-first", ("--config", "experiments/flickr8k/mixed.yaml", _LAST, option, *_FALLING))
        )
        option = f"--data.init_args.synthetic.init_args.limit={Manifest.read(CONTINUED).num_records}"
        regimes.append(Regime("mixed-equal", ("--config", "experiments/flickr8k/mixed.yaml", _LAST, option)))
    return [*regimes, Regime("continuous", ("--config", "experiments/flickr8k/continuous.yaml", _LAST, _CONTINUOUS))]


def make_controls(folder: Path) -> None:
    """Write the shards of the controls: the captions of the generated pairs with other tokens."""
    synthetic, real = ShardReader(SYNTHETIC), ShardReader(REAL, NUM_REAL)
    synthetic.load()
    real.load()
    write_text_controls(folder, synthetic)
    for name, path in (("written", WRITTEN), ("continued", CONTINUED)):
        if (path / "manifest.json").exists():
            reader = ShardReader(path)
            reader.load()
            write_text_controls(folder / name, reader)
    if not (folder / "nearest" / "manifest.json").exists():
        nearest = _find_nearest(synthetic, real)
        write_control(folder / "nearest", synthetic, lambda rows: real.read([nearest[row] for row in rows]).tokens.ids)


def _find_nearest(synthetic: ShardReader, real: ShardReader) -> list[int]:
    """Return the row of the most similar real caption for every synthetic row."""
    encoder = PretrainedTextEncoder("weights://all-minilm-l6-v2", max_length=32, dtype="auto")
    encoder.load()
    owners = [row for row in range(len(real)) for _ in real.read([row]).captions[0]]
    keys = _embed(encoder, [caption for row in range(len(real)) for caption in real.read([row]).captions[0]])
    queries = _embed(encoder, [synthetic.read([row]).captions[0][0] for row in range(len(synthetic))])
    nearest = [(queries[first : first + ROWS] @ keys.T).argmax(1) for first in range(0, len(queries), ROWS)]
    return [owners[row] for row in torch.cat(nearest).tolist()]


def _embed(encoder: PretrainedTextEncoder, captions: list[str]) -> Tensor:
    parts = []
    for first in range(0, len(captions), ROWS):
        embeddings, mask = encoder.encode(captions[first : first + ROWS])
        weights = mask[..., None].float()
        parts.append(normalize((embeddings * weights).sum(1) / weights.sum(1), dim=-1))
    return torch.cat(parts)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/flickr8k-gain"), help="folder of the runs; finished ones are kept"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="train only these regimes")
    parser.add_argument("--jobs", type=int, default=2, help="number of parallel runs")
    args = parser.parse_args()
    make_controls(args.folder / "shards")
    regimes = [one for one in make_regimes(args.folder) if not args.only or one.name in args.only]
    train(regimes, args.seeds, args.folder, args.jobs)
    runs = {
        one.name: [read(one.name, seed, args.folder) for seed in args.seeds if ended(args.folder, one.name, seed)]
        for one in make_regimes(args.folder)
    }
    runs = {name: group for name, group in runs.items() if group}
    figures = {
        baseline: show(f"Flickr8k, against {baseline}", runs, baseline) for baseline in _BASELINES if baseline in runs
    }
    means = {name: sum(run.cider for run in group) / len(group) for name, group in runs.items()}
    if {"real", "mixed", "photos"} - means.keys():
        raise SystemExit("Finished runs of real, mixed or photos are missing; expected all three. Nothing is reported.")
    closed = (means["mixed"] - means["real"]) / (means["photos"] - means["real"])
    ratio = means["mixed"] / means["real"]
    report("flickr8k_gain", round(ratio, 4), seeds=args.seeds, gap_closed=round(closed, 4), against=figures)


if __name__ == "__main__":
    main()
