"""Likelihood of pairs by a captioner of the 1,000 photos alone (Flickr8k): do captions differ in style, or from images?

Compared are withheld photos with their captions, images that were generated from these captions, and images that were
generated from captions by a language model: one image per caption, by one generator. Printed are, in nats per token,
the captions' cross-entropy without an image (how unusual the wording is to the captioner) and the log-likelihood ratio
with and without their own image (how much of the caption the image shows), as
:class:`~synth2_lightning.modules.likelihood_ratio.LikelihoodRatioScorer` defines them, with 95 % intervals over
captions. ``ratio`` is the log-likelihood ratio of the language model's captions over that of people's.
"""

import os
from contextlib import chdir

import numpy as np
import torch

from controls import load_shards
from flickr8k_chain import CHOICE
from flickr8k_gain import make_parser
from flickr8k_plan import EQUAL, NUM_REAL, REGIMES
from flickr8k_runs import Experiment
from intervals import Cell, Floats, estimate
from report import save
from synth2_lightning.modules.likelihood_ratio import LikelihoodRatioScorer
from synth2_lightning.shards.reader import ShardReader
from tasks import run_tasks

_NUM_PAIRS = 1000
_BATCH_SIZE = 50


@torch.no_grad()
def measure(scorer: LikelihoodRatioScorer, shards: ShardReader, first: int = 0) -> dict[str, Floats]:
    """Return cross-entropy without an image and log-likelihood ratio in nats per token, each of shape (pairs,).

    Args:
        scorer: Loaded scorer.
        shards: Loaded pairs; those that are measured lie at equal distances. Of several captions the first counts.
        first: Number of rows that are left out.
    """
    num_pairs = min(_NUM_PAIRS, len(shards) - first)
    rows = [first + number * (len(shards) - first) // num_pairs for number in range(num_pairs)]
    captioner = scorer.captioner
    assert captioner is not None
    losses, ratios = [], []
    for start in range(0, num_pairs, _BATCH_SIZE):
        batch = shards.read(rows[start : start + _BATCH_SIZE])
        captions = [captions[0] for captions in batch.captions]
        loss = captioner.decoder.loss(captioner.encode_images(batch.tokens), captions)
        losses.append(loss.sums / loss.counts)
        ratios.append(scorer.score(batch.tokens, captions))
    ratio = torch.cat(ratios).double()
    return {"without_image": (torch.cat(losses).double() + ratio).numpy(), "ratio": ratio.numpy()}


def summarize(values: Floats) -> list[float]:
    """Return the mean and its 95 % interval over captions."""
    return [round(value, 4) for value in estimate({"": {Cell(0, 0, 0): values}}, lambda means: means[""])]


def main() -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__, "runs/flickr8k-gain")
    parser.set_defaults(draws=[0], generators=[0], seeds=[0])
    args = parser.parse_args()
    experiment = Experiment(args.folder, args.data, max(1, (os.cpu_count() or 1) // args.jobs))
    cell = Cell(args.draws[0], args.generators[0], args.seeds[0])
    chain, levels = experiment.chain(cell.draw), EQUAL.levels
    (real,) = (one for one in REGIMES if one.name == "real")
    products = {"people": "synthetic-own", "written": "written"}
    folders = {
        name: chain.folder / chain.pairs_folder(pairs, cell.generator, levels) for name, pairs in products.items()
    }
    pair_tasks = [task for pairs in products.values() for task in chain.pair_tasks(pairs, cell.generator, levels)]
    run_tasks([*experiment.tasks(real, EQUAL, cell), *pair_tasks], args.jobs)

    photos = chain.folder / f"shards/tokens-l{levels}"
    checkpoint = experiment.run_folder(real, EQUAL, cell) / "checkpoints" / "last.ckpt"
    scorer = LikelihoodRatioScorer(str(checkpoint), str(photos), limit=NUM_REAL)
    with chdir(chain.folder / CHOICE):  # the run file's paths are relative to it
        scorer.load()
    scorer.eval()
    figures = {"photos": measure(scorer, load_shards(photos), NUM_REAL)}
    figures |= {name: measure(scorer, load_shards(folder)) for name, folder in folders.items()}
    means = {name: float(np.mean(one["ratio"])) for name, one in figures.items()}
    save(
        "pair_likelihood",
        round(means["written"] / means["people"], 4),
        seeds=cell._asdict(),
        pairs={
            name: {"num_pairs": len(one["ratio"]), **{key: summarize(values) for key, values in one.items()}}
            for name, one in figures.items()
        },
    )


if __name__ == "__main__":
    main()
