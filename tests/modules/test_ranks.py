from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Tensor

from synth2_lightning.modules.ranks import check_same_checkpoint, mean_over_ranks
from synth2_lightning.types import TokenLoss

NOTHING = TokenLoss(torch.zeros(2), torch.zeros(2, dtype=torch.long))


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Sum and count of the other of two ranks, to be filled in."""
    other = torch.zeros(2)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: tensor.add_(other))
    return other


def test_the_mean_is_over_all_tokens_and_the_average_of_ranks_equals_it(beside: Tensor) -> None:
    beside.copy_(torch.tensor([3.0, 1.0]))
    sums = torch.tensor([2.0, 4.0], requires_grad=True)
    share, mean, num_tokens = mean_over_ranks(TokenLoss(sums, torch.tensor([2, 3])))
    assert float(mean) == pytest.approx(9 / 6)
    assert float(num_tokens) == 6
    assert float(share.detach()) == pytest.approx(2 * 6 / 6)  # that of the other is 2 * 3 / 6: half of both is 9 / 6
    (gradient,) = torch.autograd.grad(share / 2, sums)
    assert gradient.tolist() == pytest.approx([1 / 6, 1 / 6])
    assert not mean.requires_grad


def test_a_rank_without_a_target_token_contributes_nothing(beside: Tensor) -> None:
    beside.copy_(torch.tensor([3.0, 1.0]))
    share, mean, num_tokens = mean_over_ranks(NOTHING)
    assert (float(share), float(mean), float(num_tokens)) == (0, 3, 1)


def test_no_target_token_on_any_rank_is_an_error_on_all(beside: Tensor) -> None:
    assert not beside.any()
    with pytest.raises(ValueError, match=r"2 captions.*target"):
        mean_over_ranks(NOTHING)


def agree(monkeypatch: pytest.MonkeyPatch, paths: list[Path | None]) -> None:
    """Run the check of every rank in turn; the last one gets the checkpoints of all."""
    said: list[Any] = []

    def gather(found: list[Any], own: Any) -> None:
        said.append(own)
        found[:] = said + [own] * (len(found) - len(said))

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    for path in paths:
        check_same_checkpoint(Mock(spec=Trainer, world_size=len(paths), ckpt_path=path))


def save_as(folder: Path, rank: int, step: int, name: str = "last.ckpt") -> Path:
    path = folder / str(rank) / name
    path.parent.mkdir(exist_ok=True)
    torch.save({"global_step": step, "state_dict": {"weight": torch.full((3,), float(step))}}, path)
    return path


def test_ranks_with_copies_of_one_checkpoint_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agree(monkeypatch, [save_as(tmp_path, rank, 8) for rank in range(2)])
    first, second = (save_as(tmp_path, rank, 8) for rank in range(2))
    agree(monkeypatch, [first, second.rename(second.with_name("step=8.ckpt"))])  # the name does not matter
    agree(monkeypatch, [None, None])


@pytest.mark.parametrize("kind", ["content", "none", "gone", "cut", "folder"])
def test_ranks_with_checkpoints_of_different_content_are_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = save_as(tmp_path, 0, 8), save_as(tmp_path, 1, 9 if kind == "content" else 8)
    if kind == "gone":
        second.unlink()
    elif kind == "cut":
        second.write_bytes(second.read_bytes()[:-40])
    elif kind == "folder":
        first, second = (path.parent for path in (first, save_as(tmp_path, 1, 8, "meta.pt")))
    with pytest.raises(ValueError, match=r"different checkpoints.*same content"):
        agree(monkeypatch, [first, None if kind == "none" else second])
