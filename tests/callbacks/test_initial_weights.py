import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.initial_weights import InitialWeightsCallback, read_weights


class ConstantModule(LightningModule):
    """Module whose training changes no weight; ``head`` names a part that differs between modules."""

    def __init__(self, head: str = "head", width: int = 2) -> None:
        super().__init__()
        self.body = nn.Linear(width, width)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.add_module(head, nn.Linear(2, 2))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return 0 * self.body.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(module: ConstantModule, weights: Path, ckpt_path: Path | None = None) -> Trainer:
    trainer = Trainer(
        accelerator="cpu", max_steps=2 if ckpt_path else 1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[InitialWeightsCallback(str(weights))],
    )  # fmt: skip
    loader: DataLoader[Any] = DataLoader(range(1))  # type: ignore[arg-type]
    trainer.fit(module, loader, ckpt_path=ckpt_path, weights_only=True)
    return trainer


@pytest.fixture
def earlier(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """Return the folder of a run, and its weights."""
    torch.manual_seed(1)
    weights = ConstantModule().state_dict()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": weights}, tmp_path / "run" / "checkpoints" / "last.ckpt")
    return tmp_path / "run", weights


def test_all_ranks_copy_the_weights_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = "abcdefghijkl"
    path = tmp_path / "weights.safetensors"
    save_file({f"{name}.weight": torch.full((1, 1), float(number)) for number, name in enumerate(names)}, path)
    module: Any = nn.ModuleDict({name: nn.Linear(1, 1, bias=False) for name in names})
    order: list[int] = []

    def distribute(full: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        order.append(int(full))
        return full

    monkeypatch.setattr("synth2_lightning.callbacks.initial_weights.distribute_like", distribute)
    InitialWeightsCallback(str(path)).on_fit_start(Mock(ckpt_path=None), module)
    assert order == list(range(len(names)))


def test_trained_weights_are_copied_by_name(
    earlier: tuple[Path, dict[str, torch.Tensor]], caplog: pytest.LogCaptureFixture
) -> None:
    run, weights = earlier
    torch.manual_seed(2)
    module = ConstantModule(head="answers")
    own = {name: weight.clone() for name, weight in module.state_dict().items()}
    with caplog.at_level("INFO"):
        fit(module, run)
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, weights[name] if name.startswith("body") else own[name]), name
    assert "2 trained weights" in caplog.text
    parts = r"2 [^(]*\(answers\.bias, answers\.weight\).* 2 [^(]*\(head\.bias, head\.weight\)"
    assert re.search(parts, caplog.text)


def test_buffers_such_as_a_codebook_are_copied(tmp_path: Path) -> None:
    module = ConstantModule()
    module.register_buffer("codes", torch.zeros(2))
    save_file({"codes": torch.ones(2)}, tmp_path / "model.safetensors")
    fit(module, tmp_path)
    assert module.get_buffer("codes").tolist() == [1.0, 1.0]


def test_an_exported_folder_has_the_same_weights(tmp_path: Path, earlier: tuple[Path, dict[str, torch.Tensor]]) -> None:
    run, weights = earlier
    (tmp_path / "export").mkdir()
    save_file(weights, tmp_path / "export" / "model.safetensors")
    module = ConstantModule()
    fit(module, tmp_path / "export")
    assert torch.equal(module.body.weight, weights["body.weight"])
    assert read_weights(run).keys() == read_weights(tmp_path / "export").keys()


def test_a_resumed_run_keeps_its_own_weights(tmp_path: Path, earlier: tuple[Path, dict[str, torch.Tensor]]) -> None:
    run, weights = earlier
    first = ConstantModule()
    fit(first, run).save_checkpoint(tmp_path / "own.ckpt")
    torch.save({"state_dict": {name: weight + 1 for name, weight in weights.items()}}, tmp_path / "other.ckpt")
    second = ConstantModule()
    fit(second, tmp_path / "other.ckpt", ckpt_path=tmp_path / "own.ckpt")
    assert torch.equal(second.body.weight, weights["body.weight"])


def test_weights_of_another_shape_or_of_other_parts_are_refused(
    tmp_path: Path, earlier: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    run, _ = earlier
    with pytest.raises(ValueError, match=r"2 of 4 .*body\.bias.*\(2,\).*\(3,\).*vocabulary"):
        fit(ConstantModule(width=3), run)
    torch.save({"state_dict": {"other": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"\b4\b.*ConstantModule.*body\.weight.*\b1\b.*\(other\)"):
        fit(ConstantModule(), tmp_path / "other.ckpt")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x80\x02cos\nsystem\n."], ids=["empty", "text", "code"])
@pytest.mark.parametrize("name", ["last.ckpt", "model.safetensors"])
def test_damaged_files_and_files_with_code_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}.*(damaged|safetensors file)"):
        read_weights(tmp_path)
