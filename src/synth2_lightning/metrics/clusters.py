"""K-means clusters of sentence embeddings.

According to other sources, Synth² (arXiv 2403.07750) compares caption sets by k-means with k = 20: the fraction of
captions in the five largest clusters, and the entropy. Clusters can be fitted in two ways:

* *own clusters*, to each set separately, as the paper seems to do: they measure how evenly a set covers its own topics.
  A set about dogs alone can be as even as one about everything.
* *common clusters*, to samples of all sets together: they show which topics a set lacks. The values of a set depend on
  the other sets.

In both cases, samples of equal size are required; otherwise the largest set dominates the common clusters.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Float, Int
from torch import Tensor

from synth2_lightning.io.extras import require_extra


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Clusters of embeddings, sorted by decreasing size.

    Args:
        centers: Mean of each cluster.
        labels: Cluster of each embedding.
    """

    centers: Float[Tensor, "clusters dim"]
    labels: Int[Tensor, "captions"]

    @property
    def sizes(self) -> list[int]:
        """Number of members of each cluster."""
        return self.labels.bincount(minlength=len(self.centers)).tolist()


def fit_clusters(
    embeddings: Float[Tensor, "captions dim"], num_clusters: int = 20, seed: int = 0, num_starts: int = 5
) -> Clusters:
    """Fit k-means to embeddings, and keep the best of several initializations.

    Args:
        embeddings: Unit vectors, as returned by ``embed_sentences``.
        num_clusters: Number of clusters; some are empty if there are fewer distinct embeddings.
        seed: Seed of the initializations.
        num_starts: Number of k-means++ initializations.

    Raises:
        ValueError: If there are fewer embeddings than clusters, or ``num_clusters`` is less than 1.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> fit_clusters(embeddings, num_clusters=2).labels
        tensor([0, 0, 1])
    """
    if not 1 <= num_clusters <= len(embeddings):
        raise ValueError(
            f"{len(embeddings)} captions cannot be grouped into {num_clusters} clusters; expected at least one cluster "
            "and one caption per cluster. Use fewer clusters or more captions."
        )
    require_extra("sklearn", "report")
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal captions leave clusters empty
        fitted = KMeans(num_clusters, n_init=num_starts, random_state=seed).fit(embeddings.numpy())
    labels = torch.from_numpy(fitted.labels_).long()
    order = labels.bincount(minlength=num_clusters).argsort(descending=True, stable=True)
    return Clusters(torch.from_numpy(fitted.cluster_centers_)[order], order.argsort()[labels])


def find_nearest_centers(
    embeddings: Float[Tensor, "captions dim"], centers: Float[Tensor, "clusters dim"]
) -> Int[Tensor, "captions"]:
    """Return the index of the nearest center of each embedding; the first one of a tie.

    Example:
        >>> find_nearest_centers(torch.tensor([[0.9, 0.1], [0.0, 1.0]]), torch.eye(2))
        tensor([0, 1])
    """
    return (centers.square().sum(1) - 2 * embeddings @ centers.T).argmin(1)


def count_words(texts: Iterable[Sequence[str]], labels: Sequence[int], counts: Sequence[Counter[str]]) -> None:
    """Add the document frequencies of words in each group to ``counts``.

    Args:
        texts: Words of each text.
        labels: Group of each text.
        counts: Per group, the number of its texts that contain each word.

    Example:
        >>> counts = [Counter(), Counter()]
        >>> count_words([["a", "dog", "a"], ["a", "cat"]], [0, 1], counts)
        >>> counts[0]["a"]
        1
    """
    for text, label in zip(texts, labels, strict=True):
        counts[label].update(set(text))


def name_groups(counts: Sequence[Counter[str]], num_words: int = 3) -> list[list[str]]:
    """Return the typical words of each group.

    Words are ranked by their contribution to the Kullback-Leibler divergence of the group's word distribution from that
    of all groups, which needs no list of stop words.

    Args:
        counts: Per group, the number of its texts that contain each word.
        num_words: Maximum number of words per group, the most typical first.

    Example:
        >>> name_groups([Counter(a=2, dog=2, runs=1), Counter(a=2, cat=2, sits=1)], num_words=1)
        [['dog'], ['cat']]
    """
    total: Counter[str] = Counter()
    for group in counts:
        total.update(group)
    num_total = total.total()
    names = []
    for group in counts:
        size = group.total()
        gains = {word: count * log(count * num_total / (size * total[word])) for word, count in group.items()}
        names.append(sorted(gains, key=lambda word: (-gains[word], word))[:num_words])
    return names
