"""Comparison of caption sets: statistics, clusters and a t-SNE map of embeddings (Synth², arXiv 2403.07750)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from rich.console import Console
from torch import Tensor

from synth2_lightning.interfaces import TextEncoder
from synth2_lightning.io.extras import require_extra
from synth2_lightning.metrics.balance import Balance, measure_balance
from synth2_lightning.metrics.clusters import Clusters, count_words, fit_clusters, name_groups
from synth2_lightning.metrics.diversity import split_caption
from synth2_lightning.reports.caption_set import CaptionSet
from synth2_lightning.reports.embedding import embed_captions
from synth2_lightning.reports.set_statistics import SetStatistics, measure_set

_NUM_EXAMPLES = 2
_NUM_MAPPED = 2000  # points in total: t-SNE takes seconds, and points remain distinguishable


@dataclass(frozen=True, slots=True, eq=False)
class ComparedSet:
    """One set of a comparison.

    Args:
        captions: The complete set.
        statistics: Statistics of the set.
        own_sizes: Number of sampled captions in each cluster fitted to this set, largest first.
        common_sizes: Number of sampled captions in each common cluster, in the order of the topics.
    """

    captions: CaptionSet
    statistics: SetStatistics
    own_sizes: list[int]
    common_sizes: list[int]

    @property
    def own_balance(self) -> Balance:
        """Balance over the set's own clusters."""
        return measure_balance(self.own_sizes)

    @property
    def common_balance(self) -> Balance:
        """Balance over the common clusters."""
        return measure_balance(self.common_sizes)


@dataclass(frozen=True, slots=True, eq=False)
class Topic:
    """Common cluster: fitted to the samples of all sets.

    Args:
        words: Typical words, the most typical first.
        examples: Per set, the captions nearest to the center.
    """

    words: list[str]
    examples: list[list[str]]


@dataclass(frozen=True, slots=True, eq=False)
class CaptionMap:
    """Two-dimensional t-SNE embedding of some captions of each set.

    Args:
        positions: Coordinates of the captions.
        captions: The captions.
        sets: Index of the set of each caption.
        topics: Index of the topic of each caption.
    """

    positions: Float[Tensor, "points 2"]
    captions: list[str]
    sets: Int[Tensor, "points"]
    topics: Int[Tensor, "points"]


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Data of a report.

    Args:
        sets: The compared sets, in input order.
        topics: Common clusters, largest first.
        map: t-SNE map of some captions.
        sample_size: Number of captions compared per set.
        encoder: Name of the sentence encoder.
        seed: Seed of samples and clusters.
    """

    sets: tuple[ComparedSet, ...]
    topics: tuple[Topic, ...]
    map: CaptionMap
    sample_size: int
    encoder: str
    seed: int


def compare_sets(
    sets: Sequence[CaptionSet],
    encoder: TextEncoder,
    num_clusters: int = 20,
    sample: int = 5000,
    seed: int = 0,
    evaluation: Sequence[str] = (),
    console: Console | None = None,
) -> Comparison:
    """Compare caption sets by samples of equal size.

    Args:
        sets: At least one caption set.
        encoder: Sentence encoder; it is loaded here.
        num_clusters: Number of clusters.
        sample: Maximum number of captions per set; limited by the smallest set, because statistics depend on the size.
        seed: Seed of samples and clusters.
        evaluation: Captions to measure overlap with, such as test captions.
        console: Console for progress.

    Raises:
        ValueError: If the sample of a set has fewer captions than clusters, or fewer than two.

    Example:
        >>> import pyarrow as pa
        >>> from pathlib import Path
        >>> from synth2_lightning.reports.caption_set import count_captions
        >>> from synth2_lightning.reports.partitions import TablePartition
        >>> from synth2_lightning.testing import TinyTextEncoder
        >>> rows = pa.table({"caption": ["a fox", "a red fox", "two dogs", "two big dogs"]})
        >>> animals = count_captions("animals", Path(), [TablePartition(rows)])
        >>> compare_sets([animals], TinyTextEncoder(), num_clusters=2).sets[0].own_sizes
        [2, 2]
    """
    size = min(sample, *map(len, sets))
    smallest = min(sets, key=len)
    if size < max(2, num_clusters):
        raise ValueError(
            f"{size} captions of each set cannot be compared by {num_clusters} clusters: the smallest set, "
            f"{smallest.name!r}, has {len(smallest)}, and the sample is {sample}. Expected at least two captions, and "
            "one per cluster. Use fewer clusters (--num_clusters), or larger sets."
        )
    console = console or Console(quiet=True)
    encoder.load()
    samples = [captions.sample(size, seed) for captions in sets]
    embeddings = [embed_captions(encoder, texts, one.name, console) for one, texts in zip(sets, samples, strict=True)]
    with console.status("fitting clusters"):
        own = [fit_clusters(each, num_clusters, seed).sizes for each in embeddings]
        common = fit_clusters(torch.cat(embeddings), num_clusters, seed)
    labels = common.labels.view(len(sets), size)
    with console.status("counting words"):
        statistics = [
            measure_set(captions, texts, evaluation, seed) for captions, texts in zip(sets, samples, strict=True)
        ]
    compared = [
        ComparedSet(captions, each, sizes, row.bincount(minlength=num_clusters).tolist())
        for captions, each, sizes, row in zip(sets, statistics, own, labels, strict=True)
    ]
    with console.status("computing the map"):
        caption_map = _map_captions(samples, torch.stack(embeddings), labels, seed)
    topics = _describe_topics(samples, embeddings, common)
    return Comparison(tuple(compared), topics, caption_map, size, encoder.name, seed)


def _describe_topics(
    samples: Sequence[Sequence[str]], embeddings: Sequence[Float[Tensor, "captions dim"]], clusters: Clusters
) -> tuple[Topic, ...]:
    num_topics = len(clusters.centers)
    words: list[Counter[str]] = [Counter() for _ in range(num_topics)]
    count_words([split_caption(caption) for texts in samples for caption in texts], clusters.labels.tolist(), words)
    names = name_groups(words)
    labels = clusters.labels.view(len(samples), -1)
    return tuple(
        Topic(
            names[topic],
            [
                _find_nearest(texts, vectors, row == topic, clusters.centers[topic])
                for texts, vectors, row in zip(samples, embeddings, labels, strict=True)
            ],
        )
        for topic in range(num_topics)
    )


def _find_nearest(
    texts: Sequence[str], vectors: Float[Tensor, "captions dim"], members: Tensor, center: Float[Tensor, " dim"]
) -> list[str]:
    rows = members.nonzero().flatten()
    order = rows[(vectors[rows] - center).norm(dim=1).argsort(stable=True)]
    return list(dict.fromkeys(texts[row] for row in order.tolist()))[:_NUM_EXAMPLES]


def _map_captions(
    samples: Sequence[Sequence[str]],
    embeddings: Float[Tensor, "sets captions dim"],
    labels: Int[Tensor, "sets captions"],
    seed: int,
) -> CaptionMap:
    require_extra("sklearn", "report")
    from sklearn.manifold import TSNE

    num = min(len(samples[0]), max(1, _NUM_MAPPED // len(samples)))  # samples are shuffled
    vectors = embeddings[:, :num].flatten(0, 1)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    positions = TSNE(perplexity=perplexity, init="random", random_state=seed).fit_transform(vectors.numpy())
    return CaptionMap(
        positions=torch.from_numpy(positions),
        captions=[caption for texts in samples for caption in texts[:num]],
        sets=torch.arange(len(samples)).repeat_interleave(num),
        topics=labels[:, :num].flatten(),
    )
