"""Do the attention maps of `synth2 demo` lie on what a word names? Measured on Scenes, where that is known.

One thing in a picture: how much more of the map of its shape's word lies on it than its area would get by chance,
beside the maps of all other words, and beside the same maps over another picture. Two things: which share of what lies
on either lies on the one that the word names; one half is chance.

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
from synth2_lightning.captioner import load_captioner
from synth2_lightning.demo.word_maps import map_words
from synth2_lightning.scenes.drawing import SIDE, place_things
from synth2_lightning.scenes.grammar import name_several
from synth2_lightning.scenes.source import ScenesSource
from synth2_lightning.scenes.world import Pair, Scene, Shape, Single, Size, Thing
from synth2_lightning.types import Pixels

SHAPE_WORDS = {word for shape in Shape for word in (shape.value, name_several(shape))}
RADIUS = {Size.SMALL: 7, Size.LARGE: 12}


def find_things(scene: Scene, side: int) -> list[tuple[Thing, Tensor]]:
    """Give the things of a scene, and the cells of a square grid whose middles they cover."""
    middles = (torch.arange(side) + 0.5) * SIDE / side
    found = []
    for thing, x, y in place_things(scene.content, Random(scene.seed)):
        distance = torch.maximum((middles - x).abs()[None, :], (middles - y).abs()[:, None])
        found.append((thing, distance <= RADIUS[thing.size]))
    return found


def map_scenes(checkpoint: str, content: type, num: int) -> Iterator[tuple[Scene, tuple[str, ...], Tensor]]:
    """Caption validation pictures with a kind of content, and map the words of the captions."""
    captioner = load_captioner(checkpoint, "cpu")
    source = ScenesSource("val", num_pictures=10 * num)
    chosen = [index for index in range(len(source)) if isinstance(source.scene(index).content, content)][:num]
    for index in chosen:
        picture = source.picture(index)
        pixels = Pixels(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].contiguous())
        words, maps = map_words(captioner.module, pixels, captioner.caption([picture])[0])
        yield source.scene(index), words, maps


def density(weights: Tensor, covered: Tensor) -> float:
    """How many times the mean of the map lies on the covered cells."""
    return float(weights[covered].mean() / weights.mean())


def measure_single(checkpoint: str, num: int) -> dict[str, float]:
    """Measure pictures of one thing."""
    named, other, elsewhere, peaks = [], [], [], []
    last: Tensor | None = None
    for scene, words, maps in map_scenes(checkpoint, Single, num):
        [(_, covered)] = find_things(scene, maps.shape[1])
        for word, weights in zip(words, maps, strict=True):
            if word not in SHAPE_WORDS:  # another shape's counts, too: it can be said of this thing alone
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
        "share_above_chance": round(mean(value > 1 for value in named), 3),
        "share_of_peaks_on_shape": round(mean(peaks), 3),
        "other_words_times_chance": round(mean(other), 3),
        "other_picture_times_chance": round(mean(elsewhere), 3),
    }


def measure_pairs(checkpoint: str, num: int) -> dict[str, float]:
    """Measure pictures of two things of different shapes."""
    shares = []
    for scene, words, maps in map_scenes(checkpoint, Pair, num):
        (first, on_first), (second, on_second) = find_things(scene, maps.shape[1])
        for thing, own, others in ((first, on_first, on_second), (second, on_second, on_first)):
            if first.shape != second.shape and words.count(thing.shape) == 1:
                weights = maps[words.index(thing.shape)]
                own_density, other_density = density(weights, own), density(weights, others)
                shares.append(own_density / (own_density + other_density))
    return {
        "num_shape_words": len(shares),
        "share_on_own_shape": round(mean(shares), 3),
        "share_above_half": round(mean(share > 0.5 for share in shares), 3),
    }


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="of a captioner of Scenes: folder or checkpoint")
    parser.add_argument("--num", type=int, default=50, help="pictures of each kind (default: 50)")
    given = parser.parse_args()
    single = measure_single(given.run, given.num)
    ratio = single["on_shape_times_chance"]
    report("attention_on_shapes", ratio, one_thing=single, two_things=measure_pairs(given.run, given.num))


if __name__ == "__main__":
    main()
