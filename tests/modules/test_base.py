import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import MagicMock, Mock

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel

from synth2_lightning.modules.base import BaseModule, source_losses
from synth2_lightning.modules.schedules import WarmupCosineSchedule


class FrozenPart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 2))
        self.register_buffer("table", torch.zeros(3))
        self.num_loads = 0

    def load(self) -> None:
        self.num_loads += 1
        self.weight.data.fill_(7.0)


class SmallModule(BaseModule):
    frozen_parts: ClassVar[tuple[str, ...]] = ("frozen",)

    def __init__(self, width: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.frozen = FrozenPart().requires_grad_(False)
        self.norm = nn.BatchNorm1d(2).requires_grad_(False)
        self.head = nn.Linear(2, width)
        self.counts = nn.BatchNorm1d(2, affine=False)

    def training_step(self, batch: tuple[torch.Tensor]) -> torch.Tensor:
        loss: torch.Tensor = self.head(batch[0] @ self.frozen.weight).square().mean()
        return loss


def test_checkpoints_hold_what_was_trained_and_nothing_else() -> None:
    assert set(SmallModule().state_dict()) == {
        "head.weight",
        "head.bias",
        "counts.running_mean",
        "counts.running_var",
        "counts.num_batches_tracked",
    }


def test_loading_refuses_a_checkpoint_of_another_model() -> None:
    state = SmallModule().state_dict()
    state["tail.weight"] = state.pop("head.weight")
    with pytest.raises(ValueError, match=r"1 trained weights are missing \(head.weight\) and 1 have no place \(tail"):
        SmallModule().load_state_dict(state)


def test_a_module_that_cannot_shard_refuses_to_train_apart() -> None:
    module = SmallModule()
    module._device_mesh = make_mesh(data_parallel=2, tensor_parallel=1)
    with pytest.raises(
        ValueError,
        match=r"SmallModule cannot shard its weights, as ModelParallelStrategy wants; .*=ddp",
    ):
        module.configure_model()


def test_fsdp1_is_refused_where_weights_are_used_outside_of_steps() -> None:
    module = SmallModule()
    module.trainer = Mock(spec=Trainer, strategy=FSDPStrategy())
    with pytest.raises(ValueError, match=r"SmallModule cannot shard its weights, as FSDPStrategy wants"):
        module.configure_model()


def test_a_mesh_that_would_train_apart_is_refused() -> None:
    module = SmallModule()
    module._device_mesh = make_mesh(data_parallel=1, tensor_parallel=2)
    with pytest.raises(ValueError, match=r"tensor_parallel_size=2: these processes would train apart.*_size=2, the"):
        module.configure_model()


def make_mesh(**sizes: int) -> DeviceMesh:
    mesh = MagicMock(spec=DeviceMesh, size=lambda: math.prod(sizes.values()))
    mesh.__getitem__.side_effect = lambda name: Mock(spec=DeviceMesh, size=lambda: sizes[name])
    return mesh


def test_a_copy_of_the_module_loads_what_it_saved() -> None:
    averaged = AveragedModel(SmallModule())
    saved = averaged.state_dict()
    assert not any("frozen" in name for name in saved)
    saved["module.head.bias"] += 1
    other = AveragedModel(SmallModule())
    module: Any = other.module
    module.configure_model()
    other.load_state_dict(saved)
    assert torch.equal(module.head.bias, saved["module.head.bias"])
    assert (module.frozen.weight == 7).all()


def test_a_module_with_nothing_to_train_says_so() -> None:
    module = SmallModule().requires_grad_(False)
    with pytest.raises(ValueError, match="SmallModule has no trainable parameter: every part is frozen"):
        module.configure_optimizers()


def test_weight_decay_reaches_matrices_only() -> None:
    optimizer = SmallModule(optimizer=lambda groups: torch.optim.AdamW(groups, weight_decay=0.5)).configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    decays = {tuple(p.shape): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {(3, 2): 0.5, (3,): 0.0}


def test_matrices_that_fsdp1_made_flat_keep_their_decay() -> None:
    class ShardedModule(SmallModule):
        def shard(self, mesh: DeviceMesh) -> None: ...

    module = ShardedModule()
    strategy = FSDPStrategy(parallel_devices=[torch.device("cpu")], cluster_environment=LightningEnvironment())
    module.trainer = Mock(spec=Trainer, strategy=strategy)
    module.configure_model()
    for weight in module.parameters():
        weight.data = weight.data.flatten()
    decayed, others = module.parameter_groups()
    assert decayed["params"] == [module.head.weight]
    assert others == {"params": [module.head.bias], "weight_decay": 0.0}


def test_fit_loads_parts_steps_the_schedule_and_comes_back(tmp_path: Path) -> None:
    module = SmallModule(
        width=5,
        optimizer=lambda groups: SGD(groups, lr=1.0),
        lr_scheduler=lambda optimizer, num_steps: WarmupCosineSchedule(optimizer, num_steps, 2, 0.0),
    )
    trainer = Trainer(
        max_steps=4, logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        enable_checkpointing=False, accelerator="cpu",
    )  # fmt: skip
    rows = torch.utils.data.TensorDataset(torch.randn(8, 2))
    trainer.fit(module, torch.utils.data.DataLoader(rows, batch_size=2))
    assert module.frozen.num_loads >= 1
    assert float(module.frozen.weight[0, 0]) == 7.0
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0)

    trainer.save_checkpoint(tmp_path / "last.ckpt")
    # Plain arguments are recorded too, but not under the shape checker's wrappers; tests/test_cli.py loads without any.
    loaded = SmallModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True, width=5)
    assert torch.equal(loaded.head.weight, module.head.weight)
    assert float(loaded.frozen.weight[0, 0]) == 7.0


def test_source_losses_divide_by_their_own_tokens() -> None:
    losses = source_losses(torch.tensor([4.0, 2.0, 4.0]), torch.tensor([1, 2, 1]), ("a", "b", "a"))
    assert {name: float(value) for name, value in losses.items()} == {"a": 4.0, "b": 1.0}


class DrawingModule(SmallModule):
    """Notes what chance gave it in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[tuple[float, float]] = []

    def training_step(self, batch: tuple[torch.Tensor]) -> torch.Tensor:
        self.drawn.append((torch.rand(()).item(), random.random()))
        return super().training_step(batch)

    def validation_step(self, batch: tuple[torch.Tensor], batch_idx: int) -> None:
        torch.rand(3)


def test_ranks_draw_apart_but_for_what_they_are_to_draw_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    module = DrawingModule()
    assert module.draw_alike() is torch.default_generator  # the step is called by hand
    monkeypatch.setattr(DrawingModule, "trainer", SimpleNamespace(fit_loop=SimpleNamespace(total_batch_idx=3)))
    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr(DrawingModule, "global_rank", rank)
        module.on_train_batch_start(None, 0)
        drawn.append((float(torch.rand(1)), float(torch.rand(1, generator=module.draw_alike()))))
    assert drawn[0][0] != drawn[1][0]
    assert drawn[0][1] == drawn[1][1]


def test_chance_is_that_of_the_seed_and_the_batch_whatever_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # of another test: it would win over the seeds here

    def fit(num_steps: int, ckpt_path: Path | None = None, **settings: Any) -> DrawingModule:
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 2)), batch_size=2)
        trainer = Trainer(
            accelerator="cpu", max_steps=num_steps, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path, **settings,
        )  # fmt: skip
        module = DrawingModule()
        trainer.fit(module, data, data, ckpt_path=ckpt_path, weights_only=True)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return module

    torch.manual_seed(5)
    whole = fit(6)
    assert len(set(whole.drawn)) == 6
    torch.manual_seed(5)
    torch.rand(100)
    first = fit(4, val_check_interval=1)  # a validation after every step draws, too
    torch.manual_seed(6)
    assert first.drawn + fit(6, tmp_path / "last.ckpt").drawn == whole.drawn
    assert fit(6).drawn != whole.drawn


def agree(monkeypatch: pytest.MonkeyPatch, paths: list[Path | None]) -> None:
    """Have every rank but the last say what it would resume from, and the last one compare."""
    said: list[Any] = []

    def gather(found: list[Any], own: Any) -> None:
        said.append(own)
        found[:] = said + [own] * (len(found) - len(said))

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    for path in paths:
        module = SmallModule()
        module._trainer = Mock(spec=Trainer, world_size=len(paths), ckpt_path=path)
        module._agree_on_checkpoint()


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
    with pytest.raises(ValueError, match=r"different checkpoints, by rank: .*same content on each"):
        agree(monkeypatch, [first, None if kind == "none" else second])


def test_a_module_is_not_sent_to_spawned_processes(tmp_path: Path) -> None:
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp_spawn", logger=False, enable_checkpointing=False, max_steps=1,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"spawn or fork .*ddp_spawn.*strategy='ddp'"):
        trainer.fit(SmallModule(), torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 2))))


def test_a_module_is_not_trained_in_forked_processes(tmp_path: Path) -> None:
    module = SmallModule()
    module._trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp_fork", logger=False, default_root_dir=tmp_path
    )
    with pytest.raises(ValueError, match=r"spawn or fork .*ddp_fork.*strategy='ddp'"):
        module.setup("fit")
