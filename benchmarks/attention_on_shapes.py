"""Localization of the attention maps of `synth2 demo`, measured on Scenes, where positions are known.

Images of one thing: mean attention of its shape's word on the thing, relative to the mean over the image; controls are
all other words, and the thing of another image. Images of two things: fraction of the attention on both things that is
on the named one; chance is one half.

    synth2 fit --config mixed.yaml
    python benchmarks/attention_on_shapes.py runs/version_0
"""

import argparse
from collections.abc import Iterator
from random import Random
from statistics import mean

import numpy as np
import torch
from torch import Tensor

from report import report
from synth2_lightning.demo.word_maps import map_words
from synth2_lightning.export.captioner import load
from synth2_lightning.scenes.drawing import SIDE, place_things
from synth2_lightning.scenes.grammar import name_several
from synth2_lightning.scenes.source import ScenesSource
from synth2_lightning.scenes.world import Pair, Scene, Shape, Single, Size, Thing
from synth2_lightning.types import Pixels

SHAPE_WORDS = {word for shape in Shape for word in (shape.value, name_several(shape))}
RADIUS = {Size.SMALL: 7, Size.LARGE: 12}


def find_things(scene: Scene, side: int) -> list[tuple[Thing, Tensor]]:
    """Return the things of a scene, each with a mask of the grid cells whose centers it covers."""
    centers = (torch.arange(side) + 0.5) * SIDE / side
    found = []
    for thing, x, y in place_things(scene.content, Random(scene.seed)):
        distance = torch.maximum((centers - x).abs()[None, :], (centers - y).abs()[:, None])
        found.append((thing, distance <= RADIUS[thing.size]))
    return found


def map_scenes(checkpoint: str, content: type, num: int) -> Iterator[tuple[Scene, tuple[str, ...], Tensor]]:
    """Yield validation images with a kind of content, with the words of their captions and the attention maps."""
    captioner = load(checkpoint, "cpu")
    source = ScenesSource("val", num_images=10 * num)
    chosen = [index for index in range(len(source)) if isinstance(source.scene(index).content, content)][:num]
    for index in chosen:
        image = source.image(index)
        pixels = Pixels(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous())
        words, maps = map_words(captioner.module, pixels, captioner.caption([image])[0])
        yield source.scene(index), words, maps


def density(weights: Tensor, covered: Tensor) -> float:
    """Return the mean weight of the covered cells relative to the mean of the map."""
    return float(weights[covered].mean() / weights.mean())


def measure_single(checkpoint: str, num: int) -> dict[str, float]:
    """Measure images of one thing."""
    named, other, elsewhere, peaks = [], [], [], []
    last: Tensor | None = None
    for scene, words, maps in map_scenes(checkpoint, Single, num):
        [(_, covered)] = find_things(scene, maps.shape[1])
        for word, weights in zip(words, maps, strict=True):
            if word not in SHAPE_WORDS:  # names of other shapes count, too: the image has only this thing
                other.append(density(weights, covered))
                continue
            named.append(density(weights, covered))
            peaks.append(float(covered.flatten()[weights.argmax()]))
            if last is not None:
                elsewhere.append(density(weights, last))
        last = covered
    return {
        "num_shape_words": len(named),
        "on_shape_times_chance": round(mean(named), 3),
        "fraction_above_chance": round(mean(value > 1 for value in named), 3),
        "fraction_of_peaks_on_shape": round(mean(peaks), 3),
        "other_words_times_chance": round(mean(other), 3),
        "other_image_times_chance": round(mean(elsewhere), 3),
    }


def measure_pairs(checkpoint: str, num: int) -> dict[str, float]:
    """Measure images of two things of different shapes."""
    fractions = []
    for scene, words, maps in map_scenes(checkpoint, Pair, num):
        (first, on_first), (second, on_second) = find_things(scene, maps.shape[1])
        for thing, own, others in ((first, on_first, on_second), (second, on_second, on_first)):
            if first.shape != second.shape and words.count(thing.shape) == 1:
                weights = maps[words.index(thing.shape)]
                own_density, other_density = density(weights, own), density(weights, others)
                fractions.append(own_density / (own_density + other_density))
    return {
        "num_shape_words": len(fractions),
        "fraction_on_own_shape": round(mean(fractions), 3),
        "fraction_above_half": round(mean(fraction > 0.5 for fraction in fractions), 3),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="run folder or checkpoint of a captioner of Scenes")
    parser.add_argument("--num", type=int, default=50, help="images of each kind (default: 50)")
    args = parser.parse_args()
    single = measure_single(args.run, args.num)
    ratio = single["on_shape_times_chance"]
    report("attention_on_shapes", ratio, one_thing=single, two_things=measure_pairs(args.run, args.num))


if __name__ == "__main__":
    main()
