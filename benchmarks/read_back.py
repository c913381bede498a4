"""Agreement of generated tokens with their captions, attribute by attribute.

A captioner that was trained on rendered Scenes only ranks, given the generated tokens, the caption against the same
sentence with another shape, color, size, count, place, relation, ground or pattern ("a red ring above a blue star"
against "a pink ring above a blue star", and so on). An attribute is correct if the caption has the highest likelihood.
Ranking is used instead of generation, because a generated caption does not mention every attribute.

Three kinds of tokens are compared: the generated ones; those of the rendered image of the same scene (upper bound); and
those generated for another caption (language prior). Sentences that name a held-out combination are also reported
separately; attributes that a sentence does not name are skipped. The scene of a caption is found by the record's key,
and other sentences by the same template for another scene, so that they are grammatical.

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
    Color,
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
from synth2_lightning.types import ImageTextBatch, Pixels, VQTokens

NUM_SENTENCES = 9  # the grammar's number of templates per scene; the scene's seed decides their order
NAMES = ("shape", "color", "relation", "size", "count", "place", "ground", "pattern")
HEADLINE = NAMES[:3]
KINDS = ("generated", "real", "shuffled")


class Question(NamedTuple):
    """One attribute of a sentence: the true sentence, and one for each other value of the attribute."""

    row: int
    split: str
    attribute: str
    true: str
    others: tuple[str, ...]


Answers = list[tuple[Question, tuple[bool, ...]]]
"""Whether the true sentence has the highest likelihood, for each kind of tokens."""


def find_scene(key: str, caption: str, seed: int) -> tuple[Scene, int]:
    """Return the scene of a caption, and the index of the caption among the scene's sentences.

    Args:
        key: Key of the record; it has the split and the index of the scene.
        caption: A caption of the scene.
        seed: Seed of the ``ScenesSource`` of the captions.

    Raises:
        ValueError: If the key is not of a scene, or the caption is of another scene.
    """
    if match := re.search(r"-(train|val|test|held_out)-(\d{6,})", key):
        scene = scene_at(match[1], int(match[2]), seed)  # type: ignore[arg-type]  # the pattern lists the splits
        sentences = describe_scene(scene, NUM_SENTENCES)
        if caption in sentences:
            return scene, sentences.index(caption)
    raise ValueError(
        f"The caption {caption!r} of the record {key!r} is not a caption of that scene of Scenes with seed {seed}. "
        "Expected shards with captions of a ScenesSource; give its seed with --seed."
    )


def alternatives(scene: Scene) -> list[tuple[str, list[Scene]]]:
    """Return by attribute the scenes that differ from this one in one attribute of one thing.

    A relation is replaced by the other one, and by both with the things swapped.
    """
    match scene.content:
        case Single() as content:
            found = [("place", _vary(content, "place", Place))]
        case Group() as content:
            found = [("count", _vary(content, "count", (2, 3)))]
        case Pair() as content:
            replaced = _vary(content, "relation", Relation)
            swapped = [replace(pair, first=pair.second, second=pair.first) for pair in (content, *replaced)]
            found = [("relation", replaced + swapped)]
    for thing in ("first", "second") if isinstance(scene.content, Pair) else ("thing",):
        for name, kind in (("shape", Shape), ("color", Color), ("size", Size)):
            others = _vary(getattr(content, thing), name, kind)
            found.append((name, [replace(content, **{thing: other}) for other in others]))
    contents = [(name, [replace(scene, content=other) for other in others]) for name, others in found]
    return [*contents, ("ground", _vary(scene, "ground", Ground)), ("pattern", _vary(scene, "pattern", Pattern))]


def make_questions(row: int, scene: Scene, template: int) -> Iterator[Question]:
    """Yield a question for every attribute that a sentence names.

    Args:
        row: Row of the batch.
        scene: Scene of the sentence.
        template: Index of the sentence among the scene's sentences.
    """
    true = _sentence(scene, template)
    split = "held_out" if _is_lacking(scene, template) else "seen"
    for attribute, scenes in alternatives(scene):
        if _sentence(scenes[0], template) != true:  # the sentence names the attribute
            sentences = dict.fromkeys(_sentence(other, template) for other in scenes if _is_possible(other))
            yield Question(row, split, attribute, true, tuple(text for text in sentences if text != true))


def _vary(part: Any, field: str, options: Iterable[Any]) -> list[Any]:
    return [replace(part, **{field: option}) for option in options if option != getattr(part, field)]


def _sentence(scene: Scene, template: int) -> str:
    return describe_scene(scene, NUM_SENTENCES)[template]


def _is_possible(scene: Scene) -> bool:
    """Return whether a scene can be sampled; the two things of a pair differ in shape or color."""
    match scene.content:
        case Pair(first=first, second=second):
            return (first.shape, first.color) != (second.shape, second.color)
        case _:
            return True


def _is_lacking(scene: Scene, template: int) -> bool:
    """Return whether all scenes with this sentence are held out, for all colors and relations that it does not name."""
    matching = [scene]
    for slot, (attribute, _) in enumerate(alternatives(scene)):
        if attribute in ("color", "relation") and is_held_out(scene.content):
            others = [other for match in matching for other in alternatives(match)[slot][1]]
            matching += [other for other in others if _sentence(other, template) == _sentence(scene, template)]
    return all(is_held_out(other.content) for other in matching)


@torch.inference_mode()
def read(module: VisionLanguageModule, visual: Tensor, questions: Sequence[Question]) -> list[bool]:
    """Return for each question whether the true sentence has the highest likelihood.

    Args:
        module: Captioner in evaluation mode.
        visual: Visual tokens of shape (batch, latents, width).
        questions: Questions about rows of the batch.
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
    """Return the answers to all questions about the captions of a batch."""
    tokenizer = module.image_encoder
    if not isinstance(tokenizer, ImageTokenizer):
        raise SystemExit(f"The captioner's encoder is a {type(tokenizer).__name__}; expected an image tokenizer.")
    found = [find_scene(key, caption, seed) for key, caption in zip(batch.keys, batch.captions, strict=True)]
    questions = [each for row, (scene, template) in enumerate(found) for each in make_questions(row, scene, template)]
    rendered = torch.from_numpy(np.stack([np.asarray(draw_scene(scene)) for scene, _ in found])).permute(0, 3, 1, 2)
    generated = module.encode_images(batch.image.to(module.device))
    real = module.encode_images(tokenizer.tokenize(Pixels(rendered).to(module.device)))
    views = [read(module, visual, questions) for visual in (generated, real, generated.roll(1, 0))]
    return list(zip(questions, zip(*views, strict=True), strict=True))


def count_codes(batch: ImageTextBatch) -> list[int]:
    """Return the number of different tokens of each image; few of them mean that the images have little detail."""
    if not isinstance(batch.image, VQTokens):
        raise SystemExit(f"The shards have {type(batch.image).__name__}; expected image tokens.")
    return [len(image.unique(dim=0)) for image in batch.image.ids]


def summarize(answers: Answers, split: str) -> list[dict[str, Any]]:
    """Return the accuracy of each kind of tokens by attribute; the last row is the mean over ``HEADLINE``."""
    rows = []
    for name in NAMES:
        is_right = [views for each, views in answers if each.attribute == name and split in (each.split, "all")]
        if is_right:
            accuracies = dict(zip(KINDS, np.mean(is_right, axis=0).round(4).tolist(), strict=True))
            rows.append({"sentences": split, "attribute": name, "asked": len(is_right), **accuracies})
    headline = [row for row in rows if row["attribute"] in HEADLINE]
    means = {kind: round(statistics.mean(row[kind] for row in headline), 4) for kind in KINDS} if headline else {}
    num = sum(row["asked"] for row in headline)
    return [*rows, {"sentences": split, "attribute": " + ".join(HEADLINE), "asked": num, **means}]


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the accuracies."""
    table = Table("sentences", "attribute", *(Column(name, justify="right") for name in ("questions", *KINDS)))
    for row in rows:
        accuracies = [f"{row[kind]:.3f}" if kind in row else "" for kind in KINDS]
        table.add_row(
            row["sentences"], row["attribute"], str(row["asked"]), *accuracies, end_section="+" in row["attribute"]
        )
    Console().print(table)


def main() -> None:
    """Print a table and one JSON line; ``ratio`` is the mean accuracy of generated over that of rendered images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", help="checkpoint of a captioner of rendered Scenes")
    parser.add_argument("shards", nargs="?", help="folder of shards with captions of Scenes")
    parser.add_argument("--seed", type=int, default=1, help="seed of the captions' ScenesSource (default: %(default)s)")
    parser.add_argument("--captions", type=int, default=2000, help="maximum number of captions (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="200 captions")
    args = parser.parse_args()
    if not args.shards:
        commands = __doc__.rpartition("\n\n")[2]
        parser.error(
            f"expected the checkpoint of a captioner and a folder of shards, from these commands:\n\n{commands}"
        )
    torch.manual_seed(0)
    module = VisionLanguageModule.load_from_checkpoint(args.checkpoint, map_location="cpu").eval()
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    reader = ShardReader(args.shards)
    reader.load()
    pairs = ShardPairs(reader)
    num_captions = min(200 if args.quick else args.captions, len(pairs))
    answers: Answers = []
    num_codes: list[int] = []
    # Shuffled, because the tokens of "another caption" are those of the next one, which must be of another scene.
    for indices in torch.randperm(len(pairs))[:num_captions].tensor_split(math.ceil(num_captions / 64)):
        batch = pairs.read(indices.tolist())
        answers += read_batch(module, batch, args.seed)
        num_codes += count_codes(batch)
    tables = {split: summarize(answers, split) for split in ("all", "seen", "held_out")}
    show([row for rows in tables.values() for row in rows])
    *attributes, means = tables["all"]
    report(
        "read_back",
        means["generated"] / means["real"],
        accuracy=means["generated"],
        accuracy_held_out=tables["held_out"][-1].get("generated"),
        **{f"accuracy_{row['attribute']}": row["generated"] for row in attributes},
        codes_per_grid=round(statistics.mean(num_codes), 2),
        num_captions=num_captions,
        rows=[row for rows in tables.values() for row in rows],
    )


if __name__ == "__main__":
    main()
