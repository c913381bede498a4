import pytest
import torch

from synth2_lightning.metrics.token_loss import MeanTokenLoss
from synth2_lightning.types import TokenLoss


def losses(sums: list[float], counts: list[int]) -> TokenLoss:
    return TokenLoss(torch.tensor(sums), torch.tensor(counts))


def test_tokens_have_equal_weight_and_repeats_count_once() -> None:
    metric = MeanTokenLoss()
    metric.update(("1", "2"), losses([2.0, 4.0], [1, 3]))
    metric.update(("3", "1"), losses([6.0, 2.0], [2, 1]))
    assert float(metric.compute()) == 12 / 6


def test_the_order_of_batches_changes_no_bit() -> None:
    rows = [("1", 1e20), ("2", -1e20), ("3", 3.0)]
    for order in (rows, rows[::-1]):
        metric = MeanTokenLoss()
        for key, value in order:
            metric.update((key,), losses([value], [1]))
        assert float(metric.compute()) == 1.0


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="MeanTokenLoss"):
        MeanTokenLoss().compute()
