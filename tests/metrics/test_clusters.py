from collections import Counter

import pytest
import torch

from synth2_lightning.metrics.clusters import count_words, find_nearest_centers, fit_clusters, name_groups


def test_the_largest_cluster_comes_first_and_labels_fit_their_centers() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.cat([torch.eye(4)[axis].repeat(num, 1) for axis, num in enumerate((5, 6, 7, 4))])
    embeddings = embeddings + 0.01 * torch.randn(embeddings.shape, generator=generator)
    clusters = fit_clusters(embeddings, num_clusters=4, seed=1)  # with this seed, k-means finds 6 before 7
    assert clusters.sizes == [7, 6, 5, 4]
    assert torch.equal(torch.cdist(embeddings, clusters.centers).argmin(1), clusters.labels)


def test_equal_seeds_give_equal_clusters() -> None:
    embeddings = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fit_clusters(embeddings, 5, seed=3).labels, fit_clusters(embeddings, 5, seed=3).labels)


def test_equal_captions_leave_clusters_empty() -> None:
    assert fit_clusters(torch.ones(6, 2), num_clusters=3).sizes == [6, 0, 0]


@pytest.mark.parametrize("num_clusters", [0, 4])
def test_clusters_without_captions_are_refused(num_clusters: int) -> None:
    with pytest.raises(ValueError, match=f"3 captions.* {num_clusters} clusters"):
        fit_clusters(torch.eye(3), num_clusters)


def test_words_that_all_groups_have_are_not_typical() -> None:
    texts = [["a", "dog", "runs"], ["a", "dog", "a"], ["a", "cat"], ["a", "cat", "sits"]]
    counts: list[Counter[str]] = [Counter(), Counter(), Counter()]
    count_words(texts, [0, 0, 1, 1], counts)
    assert counts[0] == {"a": 2, "dog": 2, "runs": 1}
    assert name_groups(counts, num_words=2) == [["dog", "runs"], ["cat", "sits"], []]


def test_the_nearest_center_is_found_and_of_equals_the_first() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings, centers = torch.randn(200, 8, generator=generator), torch.randn(7, 8, generator=generator)
    assert torch.equal(find_nearest_centers(embeddings, centers), torch.cdist(embeddings, centers).argmin(1))
    assert find_nearest_centers(torch.ones(1, 2), torch.ones(3, 2)).tolist() == [0]
