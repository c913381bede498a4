"""Confidence intervals over images, captioners, generators and draws of the training photos.

The levels are nested: a draw of the photos has several generators, a generator several captioners. Each level is
resampled with replacement (hierarchical bootstrap: A. C. Davison and D. V. Hinkley, *Bootstrap Methods and Their
Application*, 1997, section 3.8; V. Saravanan, G. J. Berman and S. J. Sober 2020, arXiv 2007.07797). All runs are scored
on the same images, so these are crossed with the runs and resampled separately (A. B. Owen, *The pigeonhole bootstrap*,
2007, arXiv 0712.1111). Draws and images are the same for all regimes of a comparison, and so are the generators that
both have. With n members, a level contributes (n - 1) / n of its variance, and nothing with one: such an interval is
too narrow.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Means = Mapping[str, Floats]
NUM_RESAMPLES = 10_000
_MAX_GENERATORS = 16  # of a draw


class Cell(NamedTuple):
    """Seeds of one run: draw of the photos, generator, captioner; without a generator it is 0."""

    draw: int
    generator: int
    seed: int


class Estimate(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


def estimate(
    regimes: Mapping[str, Mapping[Cell, Floats]],
    statistic: Callable[[Means], Floats],
    num_resamples: int = NUM_RESAMPLES,
) -> Estimate:
    """Return a statistic of the regimes' mean scores, with its percentile interval.

    Args:
        regimes: Score of each image, of shape (images,), by run and regime. Only draws that all regimes have are used.
        statistic: Returns the statistic from arrays of means of shape (resamples,), such as
            ``lambda means: means["mixed"] - means["real"]``.
        num_resamples: Number of bootstrap resamples.

    Raises:
        ValueError: If the regimes have no draw in common.

    Example:
        >>> runs = {"a": {Cell(0, 0, 0): np.ones(9)}, "b": {Cell(0, 0, 0): np.zeros(9)}}
        >>> estimate(runs, lambda means: means["a"] - means["b"])
        Estimate(value=1.0, low=1.0, high=1.0)
    """
    draws = sorted(set.intersection(*({cell.draw for cell in runs} for runs in regimes.values())))
    if not draws:
        raise ValueError(f"The regimes {', '.join(regimes)} have no draw of the photos in common; expected one.")
    random = np.random.default_rng(0)
    num_images = len(next(iter(next(iter(regimes.values())).values())))
    weights = random.multinomial(num_images, [1 / num_images] * num_images, num_resamples) / num_images
    levels = random.random((num_resamples, len(draws), 1 + _MAX_GENERATORS))
    means, point = {}, {}
    for name, runs in regimes.items():
        cells = sorted(cell for cell in runs if cell.draw in draws)
        scores = np.stack([runs[cell] for cell in cells], axis=1)  # (images, runs)
        point[name] = (_uniform(cells) * scores.mean(axis=0)).sum(keepdims=True)
        means[name] = (_resample(cells, draws, levels, random) * (weights @ scores)).sum(axis=1)
    low, high = np.quantile(statistic(means), [0.025, 0.975])
    return Estimate(float(statistic(point)[0]), float(low), float(high))


def rank_correlation(values: Floats, others: Floats) -> Floats:
    """Return Spearman's rank correlation of values, of shape (n,), with each row of others, of shape (rows, n).

    Example:
        >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([[5.0, 7.0, 9.0], [9.0, 7.0, 5.0]]))
        array([ 1., -1.])
    """
    ranks, other_ranks = _rank(values[None]), _rank(others)
    products = (ranks * other_ranks).sum(axis=1)
    norms = np.sqrt((ranks**2).sum(axis=1) * (other_ranks**2).sum(axis=1))
    correlations: Floats = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return correlations


def _uniform(cells: list[Cell]) -> Floats:
    """Return the weight of each run: equal for draws, for generators of a draw, and for captioners of a generator."""
    draws = {cell.draw for cell in cells}
    weights = []
    for cell in cells:
        generators = {other.generator for other in cells if other.draw == cell.draw}
        seeds = [other for other in cells if other[:2] == cell[:2]]
        weights.append(1 / (len(draws) * len(generators) * len(seeds)))
    return np.array(weights)


def _resample(cells: list[Cell], draws: list[int], levels: Floats, random: np.random.Generator) -> Floats:
    """Return weights of shape (resamples, runs).

    Args:
        cells: Runs of a regime.
        draws: Draws to resample.
        levels: Uniform numbers of shape (resamples, draws, 1 + generators) that choose draws and generators.
        random: Generator of the numbers that choose captioners.
    """
    rows = np.arange(len(levels))
    weights = np.zeros((len(levels), len(cells)))
    members = [sorted({cell.generator for cell in cells if cell.draw == draw}) for draw in draws]
    num_generators = np.array([len(one) for one in members])
    groups = [
        [[column for column, cell in enumerate(cells) if cell[:2] == (draw, generator)] for generator in one]
        for draw, one in zip(draws, members, strict=True)
    ]
    # Number and columns of the runs of each draw and generator, padded with zeros.
    num_seeds = np.zeros((len(draws), num_generators.max()), dtype=int)
    columns = np.zeros((*num_seeds.shape, max(len(group) for one in groups for group in one)), dtype=int)
    for place in np.ndindex(num_seeds.shape):
        group = groups[place[0]][place[1]] if place[1] < num_generators[place[0]] else []
        num_seeds[place] = len(group)
        columns[place][: len(group)] = group
    for copy in range(len(draws)):
        draw = (levels[:, copy, 0] * len(draws)).astype(int)
        for place_of_generator in range(columns.shape[1]):
            generator = (levels[:, copy, 1 + place_of_generator] * num_generators[draw]).astype(int)
            num = num_seeds[draw, generator]
            share = (place_of_generator < num_generators[draw]) / (len(draws) * num_generators[draw] * num)
            for place_of_seed in range(columns.shape[2]):
                seed = (random.random(len(levels)) * num).astype(int)
                weights[rows, columns[draw, generator, seed]] += np.where(place_of_seed < num, share, 0)
    return weights


def _rank(values: Floats) -> Floats:
    """Return centered ranks of each row; equal values share their mean rank."""
    below = (values[:, None, :] < values[:, :, None]).sum(axis=2)
    equal = (values[:, None, :] == values[:, :, None]).sum(axis=2)
    ranks = below + (equal - 1) / 2
    centered: Floats = ranks - ranks.mean(axis=1, keepdims=True)
    return centered
