import math

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from synth2_lightning.training.step_status import BatchStatus, StepStatus
from synth2_lightning.types import TokenLoss

NOTHING = TokenLoss(torch.zeros(2), torch.zeros(2, dtype=torch.long))


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Sum, count and stop request of the other of two ranks; tests set the values."""
    other = torch.zeros(3)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: tensor.add_(other))
    return other


def test_the_mean_is_over_all_tokens_and_the_average_of_ranks_equals_it(beside: Tensor) -> None:
    beside.copy_(torch.tensor([3.0, 1.0, 0.0]))
    sums = torch.tensor([2.0, 4.0], requires_grad=True)
    share, mean = StepStatus().mean_over_ranks(TokenLoss(sums, torch.tensor([2, 3])))
    assert float(mean) == pytest.approx(9 / 6)
    assert float(share.detach()) == pytest.approx(2 * 6 / 6)  # that of the other rank is 2 * 3 / 6: the mean is 9 / 6
    (gradient,) = torch.autograd.grad(share / 2, sums)
    assert gradient.tolist() == pytest.approx([1 / 6, 1 / 6])
    assert not mean.requires_grad


def test_weighted_rows_have_a_weighted_mean_over_all_ranks(beside: Tensor) -> None:
    beside.copy_(torch.tensor([3.0, 1.0, 0.0]))  # weighted, too
    sums = torch.tensor([2.0, 4.0], requires_grad=True)
    losses = TokenLoss(sums, torch.tensor([2, 3])).weighted(torch.tensor([0.5, 2.0]))
    share, mean = StepStatus().mean_over_ranks(losses)
    num_tokens = 0.5 * 2 + 2.0 * 3 + 1
    assert float(mean) == pytest.approx((0.5 * 2 + 2.0 * 4 + 3) / num_tokens)
    (gradient,) = torch.autograd.grad(share / 2, sums)
    assert gradient.tolist() == pytest.approx([0.5 / num_tokens, 2.0 / num_tokens])


def test_a_rank_without_a_target_token_contributes_nothing(beside: Tensor) -> None:
    beside.copy_(torch.tensor([3.0, 1.0, 0.0]))
    share, mean = StepStatus().mean_over_ranks(NOTHING)
    assert (float(share), float(mean)) == (0, 3)


def publish(status: StepStatus, losses: TokenLoss, step: int = 1) -> None:
    loss, mean = status.mean_over_ranks(losses)
    status.publish(loss, step, {"loss": mean})


def test_the_outcome_of_a_batch_is_read_once(beside: Tensor) -> None:
    beside.copy_(torch.tensor([3.0, 1.0, 0.0]))
    status = StepStatus()
    assert status.read() is None
    publish(status, TokenLoss(torch.tensor([2.0, 4.0]), torch.tensor([2, 3])), step=7)
    assert status.read() == BatchStatus(7, loss=2.0, loss_sum=9.0, num_tokens=6.0, shown={"loss": 1.5})
    assert status.read() is None


def test_a_loss_without_tokens_counts_as_one_token_of_its_rank(beside: Tensor) -> None:
    beside.copy_(torch.tensor([torch.nan, 1.0, 0.0]))
    status = StepStatus()
    status.publish(torch.tensor(2.0), 1, {})
    found = status.read()
    assert found is not None
    assert (found.loss, found.num_tokens) == (2.0, 2.0)
    assert math.isnan(found.loss_sum)


def test_no_target_token_on_any_rank_is_counted_on_all(beside: Tensor) -> None:
    assert not beside.any()
    status = StepStatus()
    publish(status, NOTHING)
    found = status.read()
    assert found is not None
    assert found.num_tokens == 0


@pytest.mark.parametrize(("own", "others"), [(True, 0.0), (False, 1.0)])
def test_all_ranks_agree_to_stop_one_batch_after_a_request(own: bool, others: float, beside: Tensor) -> None:
    beside.copy_(torch.tensor([3.0, 1.0, others]))
    status = StepStatus()
    status.is_stop_requested = own
    publish(status, NOTHING)
    assert not status.is_stop_agreed
    status.read()
    assert status.is_stop_agreed
    beside[2], status.is_stop_requested = 0.0, False
    publish(status, NOTHING)
    status.read()
    assert status.is_stop_agreed  # until the end of a gradient accumulation
