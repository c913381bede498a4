"""Groups of captions by class or cluster, for balanced selection.

Clusters are fitted to a sample whose size depends only on the number of clusters, and each caption is assigned to the
nearest center. Memory is independent of the size of the set, and partitions are processed independently.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from rich.console import Console
from rich.progress import track
from torch import Tensor

from synth2_lightning.interfaces import TextEncoder
from synth2_lightning.metrics.clusters import count_words, find_nearest_centers, fit_clusters, name_groups
from synth2_lightning.metrics.diversity import split_caption
from synth2_lightning.nn.pooling import embed_sentences
from synth2_lightning.reports.caption_set import CaptionSet
from synth2_lightning.reports.embedding import BATCH_SIZE, embed_captions
from synth2_lightning.reports.partitions import Partition, list_captions, list_class_names, truncate_captions

NO_GROUP = -1
_SAMPLES_PER_CLUSTER = 1024  # Faiss uses 256 by default

Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Group of each row of a caption set, at 4 bytes per row.

    Args:
        names: Names of the groups.
        labels: Group index of each row; -1 if the caption is blank.

    Example:
        >>> Groups(["dog", "cat"], np.array([0, 1, -1, 0], np.int32)).sizes
        [2, 1]
    """

    names: Sequence[str]
    labels: Labels

    @property
    def sizes(self) -> list[int]:
        """Number of members of each group."""
        counts = np.bincount(self.labels[self.labels != NO_GROUP], minlength=len(self.names))
        return [int(count) for count in counts]


@dataclass(frozen=True, slots=True)
class _LabelByClass:
    numbers: dict[str, int]

    def __call__(self, partition: Partition) -> Labels:
        labels = [
            self.numbers[class_name] if caption else NO_GROUP
            for _, rows in partition.read(["caption", "class_name"])
            for caption, class_name in zip(list_captions(rows), list_class_names(rows), strict=True)
        ]
        return np.asarray(labels, np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class _LabelByCluster:
    encoder: TextEncoder
    centers: Float[Tensor, "clusters dim"]

    def __call__(self, partition: Partition) -> tuple[Labels, list[Counter[str]]]:
        self.encoder.load()
        labels = np.full(partition.num_rows, NO_GROUP, np.int32)
        words: list[Counter[str]] = [Counter() for _ in self.centers]
        for first, rows in partition.read(["caption"]):
            captions = truncate_captions(rows)
            offsets = [offset for offset, caption in enumerate(captions) if caption]
            filled = [captions[offset] for offset in offsets]
            found = find_nearest_centers(embed_sentences(self.encoder, filled, BATCH_SIZE), self.centers)
            labels[np.asarray(offsets, np.int64) + (first - partition.first_row)] = found.numpy()
            count_words([split_caption(caption) for caption in filled], found.tolist(), words)
        return labels, words


def group_by_class(captions: CaptionSet) -> Groups:
    """Return the class of each caption; the largest class is first.

    Raises:
        ValueError: If no row has a class name.
    """
    names = [name for name, _ in captions.counts.class_sizes.most_common()]
    if not any(names):
        raise ValueError(
            f"Caption set {captions.name!r} has no class names; expected values in a column 'class_name'. Add them, or "
            "select by clusters."
        )
    label = _LabelByClass({name: number for number, name in enumerate(names)})
    return Groups(names, np.concatenate(list(captions.engine.map(label, captions.partitions))))


def group_by_cluster(
    captions: CaptionSet, encoder: TextEncoder, num_clusters: int, seed: int, console: Console
) -> Groups:
    """Return the cluster of each caption; the largest is first, and names are numbers with typical words.

    Raises:
        ValueError: If there are fewer captions than clusters.

    Example:
        >>> import pyarrow as pa
        >>> from pathlib import Path
        >>> from synth2_lightning.reports.caption_set import count_captions
        >>> from synth2_lightning.reports.partitions import TablePartition
        >>> from synth2_lightning.testing import TinyTextEncoder
        >>> rows = pa.table({"caption": ["two dogs", "a fox", "a fox"]})
        >>> animals = count_captions("animals", Path(), [TablePartition(rows)])
        >>> group_by_cluster(animals, TinyTextEncoder(), num_clusters=2, seed=0, console=Console(quiet=True)).names
        ['1 a fox', '2 dogs two']
    """
    encoder.load()
    sample = captions.sample(max(1, num_clusters) * _SAMPLES_PER_CLUSTER, seed)
    fitted = fit_clusters(embed_captions(encoder, sample, captions.name, console), num_clusters, seed)
    words: list[Counter[str]] = [Counter() for _ in range(num_clusters)]
    parts = []
    results = captions.engine.map(_LabelByCluster(encoder, fitted.centers), captions.partitions)
    total = len(captions.partitions)
    for labels, counts in track(results, "assigning clusters", total, console=console, transient=True):
        parts.append(labels)
        for count, more in zip(words, counts, strict=True):
            count.update(more)
    groups = Groups([""] * num_clusters, np.concatenate(parts))
    order = np.argsort(-np.asarray(groups.sizes), kind="stable")
    typical = name_groups([words[number] for number in order])
    names = [" ".join([str(number), *some]) for number, some in enumerate(typical, start=1)]
    ranks = np.append(np.argsort(order), NO_GROUP).astype(np.int32)  # index -1 selects the last element
    return Groups(names, ranks[groups.labels])
