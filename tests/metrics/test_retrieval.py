import pytest
import torch

from synth2_lightning.metrics.retrieval import RetrievalRecall


def test_a_common_component_does_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(200, 8, generator=generator) + 100
    metric = RetrievalRecall(k=1)
    metric.update(targets + 0.1 * torch.randn(200, 8, generator=generator), targets)
    assert metric.compute() > 0.95
    metric.reset()
    metric.update(targets + 10, targets)
    assert metric.compute() < 0.5  # what only the queries have in common counts


@pytest.mark.parametrize(("k", "recall"), [(1, 2 / 3), (2, 1)])
def test_own_targets_among_the_k_nearest_of_all_batches_are_found(k: int, recall: float) -> None:
    metric, targets = RetrievalRecall(k), torch.eye(3)
    queries = torch.tensor([[0.9, 1, 0], [0, 1, 0], [0, 0, 1]])  # the first one is nearer to the second target
    for row in range(3):
        metric.update(queries[[row]], targets[[row]])
    assert float(metric.compute()) == pytest.approx(recall)


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"RetrievalRecall\.k.* 0"):
        RetrievalRecall(k=0)
