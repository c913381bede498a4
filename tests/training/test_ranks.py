from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import Trainer

from synth2_lightning.io.checkpoint_files import checksum
from synth2_lightning.training.ranks import check_same_checkpoint


def agree(monkeypatch: pytest.MonkeyPatch, paths: list[Path | None]) -> list[tuple[str, str]]:
    """Run the check on every rank in turn; return the values that they compared. The last rank gets those of all."""
    compared: list[tuple[str, str]] = []

    def gather(found: list[Any], own: Any) -> None:
        compared.append(own)
        found[:] = compared + [own] * (len(found) - len(compared))

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    for path in paths:
        check_same_checkpoint(Mock(spec=Trainer, world_size=len(paths), ckpt_path=path))
    return compared


def save_as(folder: Path, rank: int, step: int, name: str = "last.ckpt") -> Path:
    path = folder / str(rank) / name
    path.parent.mkdir(exist_ok=True)
    torch.save({"global_step": step, "state_dict": {"weight": torch.full((3,), float(step))}}, path)
    return path


def test_ranks_with_copies_of_one_checkpoint_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (save_as(tmp_path, rank, 8) for rank in range(2))
    content = f"checksum {checksum(first)}"
    assert agree(monkeypatch, [first, second]) == [("last.ckpt", content)] * 2
    renamed = second.rename(second.with_name("step=8.ckpt"))
    assert agree(monkeypatch, [first, renamed]) == [("last.ckpt", content), ("step=8.ckpt", content)]
    assert agree(monkeypatch, [None, None]) == [("none", "")] * 2


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
