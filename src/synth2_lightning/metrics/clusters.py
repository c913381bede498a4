"""Clusters of sentence embeddings: what captions are about, and how evenly.

Synth² (arXiv 2403.07750) compares caption sets by k-means with k = 20: the share of the five largest clusters and the
entropy. Over what the clusters are fitted is a choice, and both are worth a look:

* *each set's own clusters*: how evenly a set fills the room that it spans, as in the paper as far as it says. A set
  about nothing but dogs can be as even as one about everything.
* *common clusters*, fitted over samples of all sets together: a set that leaves out what others speak of shows it. A
  set's figures then depend on the company it is in.

In either way samples of the sets must have equal sizes; over unequal ones the common clusters would be the largest's.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Groups of embeddings around centres, the largest group first.

    Args:
        centers: Mean of each group.
        labels: Group of each embedding.

    Example:
        >>> Clusters(torch.eye(2), torch.tensor([0, 0, 1])).sizes
        [2, 1]
    """

    centers: Float[Tensor, "clusters dim"]
    labels: Int[Tensor, "captions"]

    @property
    def sizes(self) -> list[int]:
        """Members of each group."""
        return self.labels.bincount(minlength=len(self.centers)).tolist()


def fit_clusters(
    embeddings: Float[Tensor, "captions dim"], num_clusters: int = 20, seed: int = 0, num_starts: int = 5
) -> Clusters:
    """Group embeddings by k-means; the best of several starts is kept.

    Args:
        embeddings: Unit vectors, as ``embed_sentences`` gives them.
        num_clusters: Number of groups; some stay empty where fewer embeddings differ.
        seed: Decides the starts.
        num_starts: How many starts by k-means++.

    Raises:
        ValueError: If there are fewer embeddings than groups, or not one group.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> fit_clusters(embeddings, num_clusters=2).labels
        tensor([0, 0, 1])
    """
    if not 1 <= num_clusters <= len(embeddings):
        raise ValueError(
            f"{len(embeddings)} captions cannot be grouped into {num_clusters} clusters; expected at least one cluster "
            "and as many captions as clusters. Ask for fewer clusters, or give more captions."
        )
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of equal captions: their groups stay empty
        fitted = KMeans(num_clusters, n_init=num_starts, random_state=seed).fit(embeddings.numpy())
    labels = torch.from_numpy(fitted.labels_).long()
    order = labels.bincount(minlength=num_clusters).argsort(descending=True, stable=True)
    return Clusters(torch.from_numpy(fitted.cluster_centers_)[order], order.argsort()[labels])


def find_nearest_centers(
    embeddings: Float[Tensor, "captions dim"], centers: Float[Tensor, "clusters dim"]
) -> Int[Tensor, "captions"]:
    """Give the group of each embedding: that of the nearest centre, of equally near ones the first.

    Example:
        >>> find_nearest_centers(torch.tensor([[0.9, 0.1], [0.0, 1.0]]), torch.eye(2))
        tensor([0, 1])
    """
    return (centers.square().sum(1) - 2 * embeddings @ centers.T).argmin(1)


def count_words(texts: Iterable[Sequence[str]], labels: Sequence[int], counts: Sequence[Counter[str]]) -> None:
    """Add to the counts of each group in how many of its texts each word is.

    Args:
        texts: Words of every text.
        labels: Group of every text.
        counts: Of every group.

    Example:
        >>> counts = [Counter(), Counter()]
        >>> count_words([["a", "dog", "a"], ["a", "cat"]], [0, 1], counts)
        >>> counts[0]["a"]
        1
    """
    for text, label in zip(texts, labels, strict=True):
        counts[label].update(set(text))


def name_groups(counts: Sequence[Counter[str]], num_words: int = 3) -> list[list[str]]:
    """Give the words that are typical of each group.

    Typical are those that add most to the Kullback-Leibler divergence of the group's words from all words: frequent
    here, rarer elsewhere. A word counts once in a text, and no list of stop words is needed.

    Args:
        counts: Of every group, in how many of its texts each word is.
        num_words: At most so many words of a group, the most typical first.

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
