"""Does what a generator draws say what its caption says?

A captioner that learnt from drawn Scenes only reads the captions back from the generated tokens. It is not asked to
write, for what it likes to mention would count, but to rate: the caption against the same sentence with another shape,
colour, size, count, place, relation, ground or pattern ("a red ring above a blue star" against "a pink ring above a
blue star", and so on). An attribute is read where the true sentence is the likeliest of all, given the tokens.

Three kinds of tokens are read: the generated ones; those of the drawn picture of the same scene, which is the ceiling;
and those that were generated for another caption, which is what the language alone gives. Apart stand the sentences
that name a combination which training lacks; what a sentence leaves open does not count. The scene behind a caption is
found by the record's key, and other sentences by saying the same of another scene, so that their grammar is right.

    synth2 fit --config real.yaml          # the captioner: runs/version_0
    synth2 fit --config generator.yaml     # the generator: runs/version_1
    synth2 predict --config synthesize.yaml --model.init_args.generator.init_args.generator=runs/version_1/generator
    python benchmarks/read_back.py runs/version_0/checkpoints/last.ckpt shards/scenes-synthetic
"""

import argparse
import itertools
import math
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

from report import report
from synth2_lightning.datamodules.synthetic import ShardPairs
from synth2_lightning.interfaces import ImageTokenizer
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.scenes.drawing import draw_scene
from synth2_lightning.scenes.grammar import describe_scene
from synth2_lightning.scenes.world import (
    Colour,
    Ground,
    Group,
    Pair,
    Pattern,
    Place,
    Relation,
    Scene,
    Shape,
    Single,
    Size,
    is_held_out,
    scene_at,
)
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.types import ImageTextBatch, Pixels

NUM_SENTENCES = 9  # the grammar has so many for every scene, in an order that the scene's seed decides
NAMES = ("shape", "colour", "relation", "size", "count", "place", "ground", "pattern")
HEADLINE = NAMES[:3]
KINDS = ("generated", "real", "shuffled")


class Question(NamedTuple):
    """One attribute of a sentence: the sentence as it is, and with each other word in the attribute's place."""

    row: int
    split: str
    attribute: str
    true: str
    others: tuple[str, ...]


Answers = list[tuple[Question, tuple[bool, ...]]]
"""Whether the true sentence was the likeliest, given each kind of tokens."""


def find_scene(key: str, caption: str, seed: int) -> tuple[Scene, int]:
    """Find the scene that a caption was written of, and which of its sentences the caption is.

    Args:
        key: The record's; it holds the split and the number of the scene.
        caption: One of the sentences that the grammar has for the scene.
        seed: Of the ``ScenesSource`` that the captions came from.

    Raises:
        ValueError: If the key is of no scene, or the caption of another one.
    """
    if match := re.search(r"-(train|val|test|held_out)-(\d{6,})", key):
        scene = scene_at(match[1], int(match[2]), seed)  # type: ignore[arg-type]  # the pattern knows the splits
        sentences = describe_scene(scene, NUM_SENTENCES)
        if caption in sentences:
            return scene, sentences.index(caption)
    raise ValueError(
        f"The caption {caption!r} of the record {key!r} is none that Scenes' grammar has for that scene under seed "
        f"{seed}. Expected shards over captions of a ScenesSource; give its seed by --seed."
    )


def alternatives(scene: Scene) -> list[tuple[str, list[Scene]]]:
    """Every scene that differs from this one in one attribute, by attribute; each of two things has its own.

    A relation turns into the other one, and both the other way round.
    """
    match scene.content:
        case Single() as content:
            found = [("place", _vary(content, "place", Place))]
        case Group() as content:
            found = [("count", _vary(content, "count", (2, 3)))]
        case Pair() as content:
            turned = _vary(content, "relation", Relation)
            swapped = [replace(pair, first=pair.second, second=pair.first) for pair in (content, *turned)]
            found = [("relation", turned + swapped)]
    for thing in ("first", "second") if isinstance(scene.content, Pair) else ("thing",):
        for name, kind in (("shape", Shape), ("colour", Colour), ("size", Size)):
            others = _vary(getattr(content, thing), name, kind)
            found.append((name, [replace(content, **{thing: other}) for other in others]))
    contents = [(name, [replace(scene, content=other) for other in others]) for name, others in found]
    return [*contents, ("ground", _vary(scene, "ground", Ground)), ("pattern", _vary(scene, "pattern", Pattern))]


def ask(row: int, scene: Scene, way: int) -> Iterator[Question]:
    """Ask for every attribute that a sentence names.

    Args:
        row: Of the batch; questions carry it.
        scene: What the sentence is said of.
        way: Which of the scene's sentences it is.
    """
    true = _say(scene, way)
    split = "held_out" if _is_lacking(scene, way) else "seen"
    for attribute, scenes in alternatives(scene):
        if _say(scenes[0], way) != true:  # a relation turned; all of the others
            sentences = dict.fromkeys(_say(other, way) for other in scenes if _is_possible(other))
            yield Question(row, split, attribute, true, tuple(text for text in sentences if text != true))


def _vary(whole: Any, field: str, options: Iterable[Any]) -> list[Any]:
    return [replace(whole, **{field: option}) for option in options if option != getattr(whole, field)]


def _say(scene: Scene, way: int) -> str:
    return describe_scene(scene, NUM_SENTENCES)[way]


def _is_possible(scene: Scene) -> bool:
    """Two things that are alike but in size are no scene, and the captioner has read of none."""
    match scene.content:
        case Pair(first=first, second=second):
            return (first.shape, first.colour) != (second.shape, second.colour)
        case _:
            return True


def _is_lacking(scene: Scene, way: int) -> bool:
    """Whether training lacks all that the sentence may be said of, whatever colours or relation it leaves open."""
    fitting = [scene]
    for slot, (attribute, _) in enumerate(alternatives(scene)):
        if attribute in ("colour", "relation") and is_held_out(scene.content):
            others = [other for known in fitting for other in alternatives(known)[slot][1]]
            fitting += [other for other in others if _say(other, way) == _say(scene, way)]
    return all(is_held_out(other.content) for other in fitting)


@torch.inference_mode()
def read(module: VisionLanguageModule, visual: Tensor, questions: Sequence[Question]) -> list[bool]:
    """Whether the true sentence of each question is the likeliest.

    Args:
        module: Captioner in evaluation mode.
        visual: Visual tokens of the batch; (batch, queries, width).
        questions: About rows of the batch.
    """
    texts = [(question.row, text) for question in questions for text in (question.true, *question.others)]
    losses: list[float] = []
    for start in range(0, len(texts), 512):
        rows, sentences = zip(*texts[start : start + 512], strict=True)
        losses += module.decoder.loss(visual[list(rows)], sentences).sums.tolist()
    remaining = iter(losses)
    return [next(remaining) < min(itertools.islice(remaining, len(question.others))) for question in questions]


@torch.inference_mode()
def read_batch(module: VisionLanguageModule, batch: ImageTextBatch, seed: int) -> Answers:
    """Ask for all that the captions of a batch name."""
    tokenizer = module.image_encoder
    if not isinstance(tokenizer, ImageTokenizer):
        raise SystemExit(f"The captioner sees by {type(tokenizer).__name__}, which reads no image tokens.")
    found = [find_scene(key, caption, seed) for key, caption in zip(batch.keys, batch.captions, strict=True)]
    questions = [question for row, (scene, way) in enumerate(found) for question in ask(row, scene, way)]
    drawn = torch.from_numpy(np.stack([np.asarray(draw_scene(scene)) for scene, _ in found])).permute(0, 3, 1, 2)
    generated = module.look(batch.image.to(module.device))
    real = module.look(tokenizer.tokenize(Pixels(drawn).to(module.device)))
    views = [read(module, visual, questions) for visual in (generated, real, generated.roll(1, 0))]
    return list(zip(questions, zip(*views, strict=True), strict=True))


def summarise(answers: Answers, split: str) -> list[dict[str, Any]]:
    """Share read right of every kind of tokens, by attribute; the last row is the mean of the headline's attributes."""
    rows = []
    for name in NAMES:
        right = [views for asked, views in answers if asked.attribute == name and split in (asked.split, "all")]
        if right:
            shares = dict(zip(KINDS, np.mean(right, axis=0).round(4).tolist(), strict=True))
            rows.append({"sentences": split, "attribute": name, "asked": len(right), **shares})
    headline = [row for row in rows if row["attribute"] in HEADLINE]
    means = {kind: round(statistics.mean(row[kind] for row in headline), 4) for kind in KINDS} if headline else {}
    asked = sum(row["asked"] for row in headline)
    return [*rows, {"sentences": split, "attribute": " + ".join(HEADLINE), "asked": asked, **means}]


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the shares read right."""
    table = Table("sentences", "attribute", *(Column(name, justify="right") for name in ("asked", *KINDS)))
    for row in rows:
        shares = [f"{row[kind]:.3f}" if kind in row else "" for kind in KINDS]
        table.add_row(
            row["sentences"], row["attribute"], str(row["asked"]), *shares, end_section="+" in row["attribute"]
        )
    Console().print(table)


def main() -> None:
    """Print a table and one JSON line; ``ratio`` is the generated tokens' mean over that of the drawn pictures'."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", help="of a captioner that learnt from drawn Scenes only")
    parser.add_argument("shards", nargs="?", help="folder of shards over captions of Scenes")
    parser.add_argument("--seed", type=int, default=1, help="of the captions' ScenesSource (default: %(default)s)")
    parser.add_argument("--captions", type=int, default=2000, help="how many to read, at most (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="200 captions")
    args = parser.parse_args()
    if not args.shards:
        how = __doc__.rpartition("\n\n")[2]
        parser.error(f"expected a captioner's checkpoint and a folder of shards, which are made so:\n\n{how}")
    torch.manual_seed(0)
    module = VisionLanguageModule.load_from_checkpoint(args.checkpoint, map_location="cpu").eval()
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    reader = ShardReader(args.shards)
    reader.load()
    pairs = ShardPairs(reader)
    num_captions = min(200 if args.quick else args.captions, len(pairs))
    answers: Answers = []
    # In an order without neighbours of the same scene, because the shuffled tokens are those of the next caption.
    for indices in torch.randperm(len(pairs))[:num_captions].tensor_split(math.ceil(num_captions / 64)):
        answers += read_batch(module, pairs.read(indices.tolist()), args.seed)
    tables = {split: summarise(answers, split) for split in ("all", "seen", "held_out")}
    show([row for rows in tables.values() for row in rows])
    *attributes, means = tables["all"]
    report(
        "read_back",
        means["generated"] / means["real"],
        accuracy=means["generated"],
        accuracy_held_out=tables["held_out"][-1].get("generated"),
        **{f"accuracy_{row['attribute']}": row["generated"] for row in attributes},
        num_captions=num_captions,
        rows=[row for rows in tables.values() for row in rows],
    )


if __name__ == "__main__":
    main()
