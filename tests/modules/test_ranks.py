import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from synth2_lightning.modules.ranks import locate_rows, mean_over_ranks
from synth2_lightning.types import TokenLoss

NOTHING = TokenLoss(torch.zeros(2), torch.zeros(2, dtype=torch.long))


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Sum and count of the other one of two ranks, to be filled in."""
    other = torch.zeros(2)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: tensor.add_(other))
    return other


def test_the_mean_is_over_all_tokens_and_its_shares_average_to_it(beside: Tensor) -> None:
    beside.copy_(torch.tensor([3.0, 1.0]))
    sums = torch.tensor([2.0, 4.0], requires_grad=True)
    share, mean = mean_over_ranks(TokenLoss(sums, torch.tensor([2, 3])))
    assert float(mean) == pytest.approx(9 / 6)
    assert float(share.detach()) == pytest.approx(2 * 6 / 6)  # that of the other is 2 * 3 / 6: half of both is 9 / 6
    (gradient,) = torch.autograd.grad(share / 2, sums)
    assert gradient.tolist() == pytest.approx([1 / 6, 1 / 6])
    assert not mean.requires_grad


def test_a_rank_without_a_target_token_stays_in_step(beside: Tensor) -> None:
    beside.copy_(torch.tensor([3.0, 1.0]))
    share, mean = mean_over_ranks(NOTHING)
    assert (float(share), float(mean)) == (0, 3)


def test_no_rank_with_a_target_token_is_an_error_on_all(beside: Tensor) -> None:
    assert not beside.any()
    with pytest.raises(ValueError, match="None of the 2 captions of this batch has a target token"):
        mean_over_ranks(NOTHING)


@pytest.mark.usefixtures("beside")
def test_ranks_cut_different_rows_out_of_what_was_drawn_for_all() -> None:
    assert locate_rows(3) == (6, slice(3, 6))
