"""Do generated pairs help where there are few photographs? On Flickr8k, with the controls that tell why.

A captioner learns from 1,000 photographs; the captions of 5,000 others are there as text. A generator, which has learnt
from the same 1,000 photographs, makes tokens of those captions (SynthPair of Synth², arXiv 2403.07750). Everything that
captioner and generator see is in the token space of a codebook that was learnt on the 1,000, too. Judged by the 1,000
photographs of the validation split; checkpoints are not chosen, the last one counts.

Regimes beside ``real`` (1,000 photographs alone) and ``mixed`` (half of every batch is generated):

* ``blank``: the same captions, each with the same grid of tokens: what the text alone brings;
* ``shuffled``: the generated tokens, dealt out anew over the captions;
* ``nearest``: the tokens of that photograph among the 1,000 which has the most similar caption (by MiniLM);
* ``photographs``: the withheld photographs themselves, all 6,000: what could be had at most;
* ``continuous``: 1,000 photographs by features that are not quantised;
* ``mixed-2``: by a second generator, of another seed; ``mixed-own``: by one whose text encoder has learnt from the
  captions of the 1,000 photographs alone;
* ``captions``: by captions that a language model wrote of the things that the captions of the 1,000 name (GenPair of
  Synth²); ``beginnings``: by those that it wrote from their first four words on; ``captions-blank`` and
  ``beginnings-blank``: the same captions, each with the same grid of tokens; ``beginnings-first``: three quarters of
  the first batch, none of the last, so that people have the last word on style;
* ``mixed-equal``: by as many captions of people as there are of ``beginnings``;
* ``balanced`` and ``narrow``: by two equally large selections of ``beginnings``, even over all clusters of their
  meanings, and of the largest clusters alone.

Run from a folder where ``data/flickr8k`` lies, after the commands of ``configs/flickr8k/README.md``.
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
_LAST = "--trainer.val_check_interval=800"  # all steps of flickr8k/trainer.yaml
_RIVALS = ("real", "blank", "beginnings-blank", "narrow")
_SHARE = "--data.init_args.synthetic_share"
_FALLING = (f"{_SHARE}=LinearShare", *(f"{_SHARE}.init_args.{it}" for it in ("start=0.75", "end=0.0", "num_steps=800")))
_CONTINUOUS = "--model.init_args.image_encoder.init_args.quantize_pixels=false"


def make_regimes(folder: Path) -> list[Regime]:
    """All of them; those whose shards are not there are told of and left out."""
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
    real = ("--config", "flickr8k/real.yaml", _LAST)
    regimes = [Regime("real", real), Regime("photographs", (*real, "--data.init_args.limit=null"))]
    for name, path in shards.items():
        if (path / "manifest.json").exists():
            option = f"--data.init_args.synthetic.init_args.shards={path}"
            regimes.append(Regime(name, ("--config", "flickr8k/mixed.yaml", _LAST, option)))
        else:
            print(f"{name} is left out: {path} holds no finished shards", flush=True)
    if (CONTINUED / "manifest.json").exists() and (SYNTHETIC / "manifest.json").exists():
        option = f"--data.init_args.synthetic.init_args.shards={CONTINUED}"
        regimes.append(Regime("beginnings-first", ("--config", "flickr8k/mixed.yaml", _LAST, option, *_FALLING)))
        option = f"--data.init_args.synthetic.init_args.limit={Manifest.read(CONTINUED).num_records}"
        regimes.append(Regime("mixed-equal", ("--config", "flickr8k/mixed.yaml", _LAST, option)))
    return [*regimes, Regime("continuous", ("--config", "flickr8k/continuous.yaml", _LAST, _CONTINUOUS))]


def make_controls(folder: Path) -> None:
    """Write the shards of the controls: the captions of the generated ones, with other tokens."""
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
    """The real row that has the caption which is most similar, for every synthetic row."""
    encoder = PretrainedTextEncoder("weights://all-minilm-l6-v2", max_length=32, dtype="bfloat16")
    encoder.load()
    owners = [row for row in range(len(real)) for _ in real.read([row]).captions[0]]
    known = _embed(encoder, [caption for row in range(len(real)) for caption in real.read([row]).captions[0]])
    asked = _embed(encoder, [synthetic.read([row]).captions[0][0] for row in range(len(synthetic))])
    nearest = [(asked[first : first + ROWS] @ known.T).argmax(1) for first in range(0, len(asked), ROWS)]
    return [owners[row] for row in torch.cat(nearest).tolist()]


def _embed(encoder: PretrainedTextEncoder, captions: list[str]) -> Tensor:
    parts = []
    for first in range(0, len(captions), ROWS):
        embeddings, mask = encoder.encode(captions[first : first + ROWS])
        weights = mask[..., None].float()
        parts.append(normalize((embeddings * weights).sum(1) / weights.sum(1), dim=-1))
    return torch.cat(parts)


def main() -> None:
    """Train, read, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/flickr8k-gain"), help="where runs go, and are found")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="these regimes alone")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    asked = parser.parse_args()
    make_controls(asked.folder / "shards")
    regimes = [one for one in make_regimes(asked.folder) if not asked.only or one.name in asked.only]
    train(regimes, asked.seeds, asked.folder, asked.jobs)
    runs = {
        one.name: [read(one.name, seed, asked.folder) for seed in asked.seeds if ended(asked.folder, one.name, seed)]
        for one in make_regimes(asked.folder)
    }
    runs = {name: group for name, group in runs.items() if group}
    figures = {rival: show(f"Flickr8k, against {rival}", runs, rival) for rival in _RIVALS if rival in runs}
    means = {name: sum(run.cider for run in group) / len(group) for name, group in runs.items()}
    if {"real", "mixed", "photographs"} - means.keys():
        raise SystemExit("Without ended runs of real, mixed and photographs there is no figure to report.")
    closed = (means["mixed"] - means["real"]) / (means["photographs"] - means["real"])
    ratio = means["mixed"] / means["real"]
    report("flickr8k_gain", round(ratio, 4), seeds=asked.seeds, gap_closed=round(closed, 4), against=figures)


if __name__ == "__main__":
    main()
