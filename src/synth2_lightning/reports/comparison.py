"""Caption sets side by side: clusters of their embeddings, and a map of them (Synth², arXiv 2403.07750)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from rich.console import Console
from torch import Tensor

from synth2_lightning.interfaces import TextEncoder
from synth2_lightning.metrics.balance import Balance, measure_balance
from synth2_lightning.metrics.clusters import Clusters, count_words, fit_clusters, name_groups
from synth2_lightning.metrics.diversity import split_caption
from synth2_lightning.reports.caption_set import CaptionSet
from synth2_lightning.reports.embedding import embed_captions
from synth2_lightning.reports.figures import SetFigures, measure_set

_NUM_EXAMPLES = 2
_NUM_MAPPED = 2000  # points over all sets: what t-SNE lays out in seconds, and what an eye can tell apart


@dataclass(frozen=True, slots=True, eq=False)
class ComparedSet:
    """One set of a comparison.

    Args:
        captions: The whole set.
        figures: What is counted in it.
        own_sizes: Captions of the sample in clusters that were fitted to it alone, largest first.
        common_sizes: Captions of the sample in the clusters that all sets share, in their order.
    """

    captions: CaptionSet
    figures: SetFigures
    own_sizes: list[int]
    common_sizes: list[int]

    @property
    def own_balance(self) -> Balance:
        """How evenly the set fills its own clusters."""
        return measure_balance(self.own_sizes)

    @property
    def common_balance(self) -> Balance:
        """How evenly the set fills the clusters that all sets share."""
        return measure_balance(self.common_sizes)


@dataclass(frozen=True, slots=True, eq=False)
class Topic:
    """A cluster that all sets share.

    Args:
        words: Typical of it, the most typical first.
        examples: Per set, the captions that are nearest to its centre.
    """

    words: list[str]
    examples: list[list[str]]


@dataclass(frozen=True, slots=True, eq=False)
class CaptionMap:
    """Some captions of every set in the plane, near each other where their embeddings are.

    Args:
        positions: Of the captions.
        captions: The texts.
        sets: Number of the set of each.
        topics: Number of the topic of each.
    """

    positions: Float[Tensor, "points 2"]
    captions: list[str]
    sets: Int[Tensor, "points"]
    topics: Int[Tensor, "points"]


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """What a report shows.

    Args:
        sets: In the order that they were given in.
        topics: The clusters that all sets share, largest first.
        map: Some of the captions in the plane.
        sample_size: Captions of each set that were compared.
        encoder: Name of the sentence encoder.
        seed: Of samples and clusters.
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
        sets: At least one.
        encoder: Any sentence encoder; it is loaded here.
        num_clusters: The paper's k is 20.
        sample: Captions of each set, fewer where the smallest set is smaller; figures of unequal samples would differ
            for that alone.
        seed: Decides samples and clusters.
        evaluation: Captions that should not be in the sets.
        console: Where progress is shown.

    Raises:
        ValueError: If the smallest set has fewer captions than there are clusters.

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
            f"{smallest.name!r}, has {len(smallest)}, and the sample is {sample}. Expected as many captions as "
            "clusters, and two at least; ask for fewer clusters, or give larger sets."
        )
    console = console or Console(quiet=True)
    encoder.load()
    samples = [captions.sample(size, seed) for captions in sets]
    embeddings = [embed_captions(encoder, texts, one.name, console) for one, texts in zip(sets, samples, strict=True)]
    with console.status("looking for clusters"):
        own = [fit_clusters(each, num_clusters, seed).sizes for each in embeddings]
        common = fit_clusters(torch.cat(embeddings), num_clusters, seed)
    labels = common.labels.view(len(sets), size)
    with console.status("counting words"):
        figures = [
            measure_set(captions, texts, evaluation, seed) for captions, texts in zip(sets, samples, strict=True)
        ]
    compared = [
        ComparedSet(captions, figure, sizes, row.bincount(minlength=num_clusters).tolist())
        for captions, figure, sizes, row in zip(sets, figures, own, labels, strict=True)
    ]
    with console.status("drawing the map"):
        plane = _map_captions(samples, torch.stack(embeddings), labels, seed)
    return Comparison(tuple(compared), _describe_topics(samples, embeddings, common), plane, size, encoder.name, seed)


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
    from sklearn.manifold import TSNE

    num = min(len(samples[0]), max(1, _NUM_MAPPED // len(samples)))  # samples are shuffled already
    vectors = embeddings[:, :num].flatten(0, 1)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    positions = TSNE(perplexity=perplexity, init="random", random_state=seed).fit_transform(vectors.numpy())
    return CaptionMap(
        positions=torch.from_numpy(positions),
        captions=[caption for texts in samples for caption in texts[:num]],
        sets=torch.arange(len(samples)).repeat_interleave(num),
        topics=labels[:, :num].flatten(),
    )
