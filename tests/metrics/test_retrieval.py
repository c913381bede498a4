import pytest
import torch

from synth2_lightning.metrics.retrieval import RetrievalRecall


def test_a_common_component_does_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(200, 8, generator=generator) + 100
    metric = RetrievalRecall(k=1)
    metric.update(targets + 0.1 * torch.randn(200, 8, generator=generator), targets)
    assert metric.compute() > 0.95


def test_recall_of_unrelated_queries_is_at_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    metric = RetrievalRecall(k=10)
    for _ in range(4):
        metric.update(torch.randn(100, 16, generator=generator), torch.randn(100, 16, generator=generator))
    assert metric.compute() == pytest.approx(10 / 400, abs=0.025)


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"RetrievalRecall\.k.* 0"):
        RetrievalRecall(k=0)
