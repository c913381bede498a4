import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import MagicMock, Mock

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment  # type: ignore[attr-defined]
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import SGD, AdamW, Optimizer

from synth2_lightning.modules.base import BaseModule
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
    frozen_components: ClassVar[tuple[str, ...]] = ("frozen",)

    def __init__(self, width: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.frozen = FrozenPart().requires_grad_(False)
        self.norm = nn.BatchNorm1d(2).requires_grad_(False)
        self.head = nn.Linear(2, width)
        self.counts = nn.BatchNorm1d(2, affine=False)

    def training_step(self, batch: tuple[torch.Tensor]) -> torch.Tensor:
        loss: torch.Tensor = self.head(batch[0] @ self.frozen.weight).square().mean()
        return loss


def test_checkpoints_contain_trained_weights_only() -> None:
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
    with pytest.raises(ValueError, match=r"SmallModule.*head\.weight.*tail\.weight"):
        SmallModule().load_state_dict(state)


def test_a_module_restores_frozen_weights_and_loads_the_others() -> None:
    saved = SmallModule().state_dict()
    saved["head.bias"] += 1
    module = SmallModule()
    module.configure_model()
    module.load_state_dict(saved)
    assert torch.equal(module.head.bias, saved["head.bias"])
    assert (module.frozen.weight == 7).all()


def test_a_module_without_sharding_refuses_a_mesh() -> None:
    module = SmallModule()
    module._device_mesh = make_mesh(data_parallel=2, tensor_parallel=1)
    with pytest.raises(ValueError, match=r"SmallModule.*ModelParallelStrategy.*=ddp"):
        module.configure_model()


def test_a_trained_weight_that_is_not_sharded_is_refused() -> None:
    class UnshardedModule(SmallModule):
        def shard(self, mesh: DeviceMesh) -> None: ...

    module = UnshardedModule()
    module._device_mesh = make_mesh(data_parallel=2, tensor_parallel=1)
    with pytest.raises(ValueError, match=r"UnshardedModule.*2 of 2.*head\.weight.*shard_component"):
        module.configure_model()


def test_fsdp1_is_refused_where_weights_are_used_outside_of_steps() -> None:
    module = SmallModule()
    module.trainer = Mock(spec=Trainer, strategy=FSDPStrategy())
    with pytest.raises(ValueError, match=r"SmallModule.*FSDPStrategy"):
        module.configure_model()


def test_a_mesh_with_tensor_parallelism_is_refused() -> None:
    module = SmallModule()
    module._device_mesh = make_mesh(data_parallel=1, tensor_parallel=2)
    with pytest.raises(ValueError, match=r"tensor_parallel_size=2.*tensor_parallel_size=1.*data_parallel_size=2"):
        module.configure_model()


def make_mesh(**sizes: int) -> DeviceMesh:
    mesh = MagicMock(spec=DeviceMesh, size=lambda: math.prod(sizes.values()))
    mesh.__getitem__.side_effect = lambda name: Mock(spec=DeviceMesh, size=lambda: sizes[name])
    return mesh


def test_a_module_without_trainable_parameters_is_refused() -> None:
    module = SmallModule().requires_grad_(False)
    with pytest.raises(ValueError, match=r"SmallModule.*no trainable parameter"):
        module.configure_optimizers()


def test_weight_decay_reaches_matrices_only() -> None:
    optimizer = SmallModule(optimizer=lambda groups: torch.optim.AdamW(groups, weight_decay=0.5)).configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    decays = {tuple(p.shape): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {(3, 2): 0.5, (3,): 0.0}


def test_matrices_flattened_by_fsdp1_keep_their_decay() -> None:
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
    assert others == {"params": [module.head.bias], "use_muon": False, "weight_decay": 0.0}


def test_fit_loads_parts_steps_the_schedule_and_is_restored(tmp_path: Path) -> None:
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
    # Plain arguments are recorded, too, but not under the wrappers of shape checks; tests/cli loads without arguments.
    loaded = SmallModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True, width=5)
    assert torch.equal(loaded.head.weight, module.head.weight)
    assert float(loaded.frozen.weight[0, 0]) == 7.0


class WeightOnGpu(nn.Parameter):
    is_cuda = True  # as far as its optimizer knows; it has no values


def test_the_state_of_a_run_on_a_cpu_is_resumed_by_fused_kernels_on_a_gpu() -> None:
    module = SmallModule()
    module.head = nn.Linear(2, 3, bias=False)
    module.head.weight = WeightOnGpu(torch.ones(3, 2, device="meta"))
    weight = nn.Parameter(torch.ones(3, 2))
    saved, resumed = AdamW([weight]), module.configure_optimizers()
    assert isinstance(resumed, Optimizer)
    weight.grad = torch.ones(3, 2)
    saved.step()
    resumed.load_state_dict(saved.state_dict())
    assert resumed.param_groups[0]["fused"]
    assert {value.device.type for value in resumed.state[module.head.weight].values()} == {"meta"}


class DrawingModule(SmallModule):
    """Records random numbers of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[tuple[float, float]] = []

    def training_step(self, batch: tuple[torch.Tensor]) -> torch.Tensor:
        self.drawn.append((torch.rand(()).item(), random.random()))
        return super().training_step(batch)

    def validation_step(self, batch: tuple[torch.Tensor], batch_idx: int) -> None:
        torch.rand(3)


def test_random_numbers_depend_on_seed_and_batch_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # set by another test, it would override the seeds here

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
    first = fit(4, val_check_interval=1)  # validations after every step sample random numbers, too
    torch.manual_seed(6)
    assert first.drawn + fit(6, tmp_path / "last.ckpt").drawn == whole.drawn
    assert fit(6).drawn != whole.drawn


def test_a_second_fit_of_a_module_has_the_seed_of_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 2)), batch_size=2)

    def fit(module: DrawingModule, seed: int) -> list[tuple[float, float]]:
        torch.manual_seed(seed)
        trainer = Trainer(
            accelerator="cpu", max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, data, data)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return module.drawn[-2:]

    module = DrawingModule()
    first, second = fit(module, 1), fit(module, 2)
    assert first != second
    assert fit(DrawingModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True), 1) == first


def test_loading_leaves_random_numbers_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    state = torch.get_rng_state()
    module = SmallModule()
    torch.set_rng_state(state)
    module.configure_model()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_module_is_not_pickled_for_spawned_processes(tmp_path: Path) -> None:
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp_spawn", logger=False, enable_checkpointing=False, max_steps=1,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"ddp_spawn.*strategy='ddp'"):
        trainer.fit(SmallModule(), torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 2))))


def test_a_module_is_not_trained_in_forked_processes(tmp_path: Path) -> None:
    module = SmallModule()
    module._trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp_fork", logger=False, default_root_dir=tmp_path
    )
    with pytest.raises(ValueError, match=r"ddp_fork.*strategy='ddp'"):
        module.setup("fit")


@pytest.mark.parametrize("limits", [{"max_epochs": -1}, {"max_epochs": 3}])
def test_a_schedule_needs_a_limit_of_the_steps(limits: dict[str, int]) -> None:
    class Endless(torch.utils.data.IterableDataset[torch.Tensor]):
        def __iter__(self) -> Iterator[torch.Tensor]:
            while True:
                yield torch.ones(2)

    def fit(**settings: Any) -> None:
        module = SmallModule(lr_scheduler=schedule)
        trainer = Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, **settings
        )
        trainer.fit(module, torch.utils.data.DataLoader(Endless(), batch_size=2))

    def schedule(optimizer: Optimizer, num_steps: int) -> WarmupCosineSchedule:
        given.append(num_steps)
        return WarmupCosineSchedule(optimizer, num_steps)

    given: list[int] = []
    unknown = rf"schedule.*max_steps=-1.*max_epochs={limits['max_epochs']}.*--trainer\.max_steps"
    with pytest.raises(ValueError, match=unknown):
        fit(**limits)
    assert given == []
    fit(**limits, max_steps=2)
    assert given == [2]
