"""What every LightningModule of the house shares: injected optimisation, late loading, small checkpoints."""

import math
import random
import warnings
from collections.abc import Callable, Container, Iterable, Mapping
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from synth2_lightning.class_specs import trusting
from synth2_lightning.locations import resolve
from synth2_lightning.modules.saved_module import build_module
from synth2_lightning.modules.sharding import (
    SPAWNED_PROCESSES,
    keep_frozen_whole,
    refuse_matrix_optimizer,
    refuse_spawned_processes,
    refuse_tensor_parallel,
)
from synth2_lightning.weight_files import checksum, read_checkpoint

_Module = TypeVar("_Module", bound=LightningModule)

OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
"""``(parameter groups) -> optimizer``."""

SchedulerFactory = Callable[[Optimizer, int], LRScheduler]
"""``(optimizer, number of optimisation steps) -> schedule``: the trainer's step count is said once, in the trainer."""


class BaseModule(LightningModule):
    """A LightningModule whose parts come by injection and whose checkpoints hold what was trained, nothing else.

    Args:
        optimizer: Makes the optimizer from parameter groups. Weight decay reaches matrices only; biases,
            gains and other vectors are in a group without.
        lr_scheduler: Makes the schedule, stepped after every optimisation step, from the optimizer and the
            number of steps that the trainer will take. None keeps the learning rate constant.

    Attributes:
        frozen_parts: Names of children that are never trained and never saved; ``load()`` brings them back.
    """

    frozen_parts: ClassVar[tuple[str, ...]] = ()

    def __init__(self, optimizer: OptimizerFactory = AdamW, lr_scheduler: SchedulerFactory | None = None) -> None:
        super().__init__()
        self._make_optimizer = optimizer
        self._make_scheduler = lr_scheduler
        self.strict_loading = False  # checkpoints are partial on purpose; load_state_dict below does the checking
        # Under the command line Lightning records the run file's text, from which load_from_checkpoint builds
        # the parts again. In a notebook the arguments are live objects: only the plain ones can be recorded.
        # This must stand in __init__ itself: Lightning reads the arguments off the calling frames.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is an instance of `nn.Module`.*")
            self.save_hyperparameters(logger=False)
        self._seed: int | None = None
        self._step_seed: int | None = None
        self._matrices: set[nn.Parameter] = set()
        live = [name for name, value in self.hparams.items() if isinstance(value, nn.Module) or callable(value)]
        self.remove_ignored_hparams(live)

    @classmethod
    def load_from_checkpoint(
        cls: type[_Module],
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> _Module:
        """Read a module from a checkpoint, with its weights, on the processor; run nothing that the checkpoint names.

        Lightning would build whatever a checkpoint describes. Here each class must be of a trusted package (the one of
        this class is; see :func:`~synth2_lightning.class_specs.trusting`) and of the type that its place asks for.

        Args:
            checkpoint_path: Location of the file.
            map_location: Only the processor; call ``.to(device)`` afterwards.
            hparams_file: Refused: a checkpoint describes its module itself.
            strict: Refused, if ``False``: all that was trained must be there.
            weights_only: Refused, if ``False``: a checkpoint of ours holds tensors and plain values only.
            **kwargs: Arguments of the module that take the place of those in the checkpoint, and its parts where a
                script built them.

        Raises:
            FileNotFoundError: If it is missing, or a file that a part reads.
            ValueError: If it is damaged, may hold code, is of another class, names classes that are not trusted, or an
                argument is refused.
        """
        if map_location not in (None, "cpu", torch.device("cpu")) or hparams_file is not None:
            raise ValueError(
                f"{cls.__name__}.load_from_checkpoint() got map_location={map_location!r} and hparams_file="
                f"{hparams_file!r}; expected neither: it is read to the processor, with the settings in it."
            )
        if strict is False or weights_only is False:
            raise ValueError(
                f"{cls.__name__}.load_from_checkpoint() got strict={strict} and weights_only={weights_only}; expected "
                "neither to be False: a checkpoint of ours holds all trained weights, tensors and plain values only."
            )
        path = resolve(checkpoint_path, "checkpoint")
        with trusting([cls.__module__.partition(".")[0]]):
            module: _Module = build_module(cls, read_checkpoint(path), path, kwargs)
        return module

    def setup(self, stage: str) -> None:
        """Have batches come as they are, and all processes resume from the same checkpoint.

        Raises:
            ValueError: If processes were started in a way that loses what they train, or their checkpoints differ.
        """
        if stage == "fit":
            refuse_spawned_processes(self.trainer.strategy)
        self._agree_on_checkpoint()
        # The precision of FSDP1 and of DeepSpeed casts numbers in batches, and refuses frozen dataclasses, as ours are.
        # They hold bytes and ids; what else they hold is cast where it is read.
        self.trainer.precision_plugin.convert_input = _leave  # type: ignore[method-assign]

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be sent to another process, as ``ddp_spawn`` does before any hook is called.

        Raises:
            ValueError: While a process is being spawned.
        """
        if get_spawning_popen() is not None:
            raise ValueError(SPAWNED_PROCESSES)
        state: dict[str, Any] = super().__getstate__()
        return state

    def _agree_on_checkpoint(self) -> None:
        """Refuse ranks that would load different weights: each finds and reads its checkpoint by itself.

        Raises:
            ValueError: On all processes, if the content of two of their checkpoints differs.
        """
        if self.trainer.world_size == 1 or not dist.is_initialized():
            return
        path = self.trainer.ckpt_path
        found = [("", "")] * self.trainer.world_size
        dist.all_gather_object(found, ("none", "") if path is None else _name_and_checksum(str(path)))
        if len({content for _, content in found}) > 1:
            names = ", ".join(f"{name} ({content})" if content else name for name, content in found)
            raise ValueError(
                f"The processes would resume from different checkpoints, by rank: {names}; expected the same content "
                "on each. Keep the run's folder on a share that every machine sees, or copy its checkpoints to each, "
                "and look there whether they can be read."
            )

    def configure_model(self) -> None:
        """Bring the weights of every part that has some; called on each rank and by ``load_from_checkpoint``."""
        reset_seed()  # as strategies of several processes do, so that new weights are those of one process
        for part in self.children():
            if callable(load := getattr(part, "load", None)):
                load()
        for name in self.frozen_parts:
            if isinstance(part := getattr(self, name), nn.Module):
                part.requires_grad_(False)
        if self._trainer is not None:
            strategy = self.trainer.strategy
            if isinstance(strategy, FSDPStrategy):
                if type(self).shard is BaseModule.shard:
                    raise self._cannot_shard("FSDPStrategy")
                self._matrices = {weight for weight in self.parameters() if weight.ndim > 1}
            keep_frozen_whole(self, strategy)
        if self.device_mesh is not None:
            refuse_tensor_parallel(self.device_mesh)
            self.shard(self.device_mesh)

    def shard(self, mesh: DeviceMesh) -> None:
        """Spread the trained parts over the mesh; override it where there are parts worth it.

        Args:
            mesh: Of ``ModelParallelStrategy``, with a ``data_parallel`` dimension.

        Raises:
            ValueError: If the module has no way to, because its ranks would then train apart without a word.
        """
        raise self._cannot_shard("ModelParallelStrategy")

    def _cannot_shard(self, strategy: str) -> ValueError:
        return ValueError(
            f"{type(self).__name__} cannot shard its weights, as {strategy} wants; expected trainer.strategy=ddp, or "
            "one device. A subclass that overrides shard(mesh) can."
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer over trainable parameters, and its schedule.

        Raises:
            ValueError: If no parameter is trainable, or the optimizer wants whole matrices and the strategy keeps none.
        """
        groups = self.parameter_groups()
        if not groups:
            raise ValueError(
                f"{type(self).__name__} has no trainable parameter: every part is frozen. Expected at least one; "
                "unfreeze a part, or use `synth2 validate` where nothing is to be trained."
            )
        optimizer = self._make_optimizer(groups)
        if self._trainer is not None:
            refuse_matrix_optimizer(optimizer, self.trainer.strategy)
        if self._make_scheduler is None:
            return optimizer
        num_steps = self.trainer.estimated_stepping_batches
        schedule = self._make_scheduler(optimizer, int(num_steps) if num_steps != float("inf") else 1_000_000)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does; by norm under FSDP1, too, which has to ask all processes for theirs."""
        whole = self.trainer.strategy.model
        if isinstance(whole, FullyShardedDataParallel) and gradient_clip_val and gradient_clip_algorithm != "value":
            whole.clip_grad_norm_(gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All that is trainable, in groups for the optimizer; override it where parts want settings of their own."""
        return decay_groups(self.parameters(), self._matrices)

    def on_train_start(self) -> None:
        """Settle what all chance in training follows from, unless a checkpoint did."""
        if self._seed is None:
            self._seed = self.trainer.strategy.broadcast(torch.initial_seed())

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Draw dropout and the like from the seed, the batch's number and the rank, whatever was drawn before.

        So a run that was stopped draws what it would have drawn, with no state of generators to be kept for each rank,
        and a validation in between changes nothing.
        """
        key = [self._seed or 0, self.trainer.fit_loop.total_batch_idx]
        self._step_seed = _derive_seed(key)
        seed = _derive_seed([*key, self.global_rank])
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - for third parties that draw from it

    def draw_alike(self) -> torch.Generator:
        """A generator for what all ranks are to draw alike in a training step, such as masks of the whole batch."""
        if self._step_seed is None:  # the step was called by hand
            return torch.default_generator
        return torch.Generator().manual_seed(self._step_seed)

    def on_before_backward(self, loss: Tensor) -> None:
        """Stop the run at a loss that is not finite, before a weight learns from it; all ranks stop together.

        Raises:
            FloatingPointError: If the loss of any rank is NaN or infinite.
        """
        # Here, because EarlyStopping(check_finite=True) looks when the optimizer has done its work.
        value = float(loss.detach())
        is_here = not math.isfinite(value)
        if not self.trainer.strategy.reduce_boolean_decision(is_here, all=False):
            return
        logged = {name: f"{value:.4g}" for name, value in self.trainer.callback_metrics.items() if "train/" in name}
        rates = {f"{group['lr']:.4g}" for optimizer in self.trainer.optimizers for group in optimizer.param_groups}
        raise FloatingPointError(
            f"The training loss of step {self.trainer.global_step + 1} is {value:.4g} on process {self.global_rank}"
            f"{'' if is_here else ', but not finite on another'}; expected a finite one on all. No gradient of it has "
            "reached a weight, and nothing is written. Logged last on this process: "
            f"{', '.join(map('='.join, logged.items())) or 'nothing'}. Learning rate: {', '.join(sorted(rates))}. "
            f"{self._way_out()}"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the last good checkpoint: no other is written where weights are not finite."""
        self.check_weights()
        checkpoint["seed"] = self._seed
        # FSDP2 takes numbers for the place of a weight in the model, though torch's optimizers count by their groups.
        for state, optimizer in zip(checkpoint.get("optimizer_states", ()), self.trainer.optimizers, strict=False):
            name_states(state, optimizer, self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the chance of the run that was stopped."""
        self._seed = checkpoint.get("seed")

    def check_weights(self) -> None:
        """Refuse weights that training has spoilt, before they are written anywhere; to be called on all ranks.

        Raises:
            FloatingPointError: If a trained weight is NaN or infinite.
        """
        trained = {name: weight.detach() for name, weight in self.named_parameters() if weight.requires_grad}
        local = {name: weight.to_local() if isinstance(weight, DTensor) else weight for name, weight in trained.items()}
        spoilt = [name for name, weight in local.items() if not weight.isfinite().all()]
        if self.trainer.strategy.reduce_boolean_decision(bool(spoilt), all=False):
            raise FloatingPointError(
                f"{len(spoilt)} of {len(trained)} trained tensors ({', '.join(spoilt[:3]) or 'but some elsewhere'}) "
                f"are not finite on process {self.global_rank} after {self.trainer.global_step} steps, though the loss "
                f"was; expected finite ones. Nothing is written. {self._way_out()}"
            )

    def _way_out(self) -> str:
        callbacks = self.trainer.checkpoint_callbacks
        kept = [getattr(callback, f"{which}_model_path", "") for which in ("last", "best") for callback in callbacks]
        path = next(filter(None, kept), "")
        resume = f"Resume from {path} (--ckpt_path, --resume_with_changes=true)"
        start = resume if path else "There is no checkpoint yet: start again"
        return (
            f"{start} with a lower learning rate, trainer.gradient_clip_val or trainer.precision=32-true; "
            "trainer.detect_anomaly=true names the operation at which it begins."
        )

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Everything that training changes; frozen weights are left out."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "")
        for name in self._frozen_names():
            state.pop(prefix + name, None)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load what :meth:`state_dict` saved.

        Raises:
            ValueError: If a trained weight is missing or has no place here: the checkpoint is of another model.
        """
        expected, given = set(self.state_dict()), set(state_dict)
        if expected != given:
            missing, foreign = sorted(expected - given), sorted(given - expected)
            raise ValueError(
                f"The checkpoint does not fit {type(self).__name__}: {len(missing)} trained weights are missing "
                f"({', '.join(missing[:3]) or 'none'}) and {len(foreign)} have no place "
                f"({', '.join(foreign[:3]) or 'none'}). Expected one that was saved with "
                "the same parts: use the config.yaml beside the checkpoint."
            )
        super().load_state_dict(state_dict, strict=False, assign=assign)
        return nn.modules.module._IncompatibleKeys([], [])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # What holds a copy of this module, such as Lightning's weight averaging, loads strictly what state_dict gave.
        present = super().state_dict()
        for name in self._frozen_names() & present.keys():
            state_dict.setdefault(prefix + name, present[name])
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _frozen_names(self) -> set[str]:
        names = {
            name for name, parameter in self.named_parameters(remove_duplicate=False) if not parameter.requires_grad
        }
        for path, module in self.named_modules(remove_duplicate=False):
            frozen_part = path.split(".")[0] in self.frozen_parts
            own = list(module.parameters(recurse=False))
            # A buffer beside frozen parameters (running statistics, say) is as frozen as they are.
            if frozen_part or (own and not any(parameter.requires_grad for parameter in own)):
                names |= {f"{path}.{name}" for name, _ in module.named_buffers(recurse=False)}
            if frozen_part:
                names |= {f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)}
        return names

    def num_trainable(self) -> int:
        """Number of trainable scalars."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)


def _name_and_checksum(path: str) -> tuple[str, str]:
    if "://" in path:
        return path, path
    found = Path(path).resolve()
    try:
        return found.name, f"checksum {checksum(found)}"
    except OSError as error:  # not raised here, where the other ranks wait
        return found.name, f"cannot be read: {error.strerror}"


def _derive_seed(key: list[int]) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def name_states(state: dict[str, Any], optimizer: Optimizer, module: nn.Module) -> None:
    """Put weights' names in the place of their numbers in an optimizer's state, so that any strategy can load it.

    Numbers that are not those of torch's own ``state_dict`` are left alone.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> optimizer = AdamW([{"params": [layer.bias]}, {"params": [layer.weight]}])
        >>> state = optimizer.state_dict()
        >>> name_states(state, optimizer, layer)
        >>> [group["params"] for group in state["param_groups"]]
        [['bias'], ['weight']]
    """
    by_weight = {weight: name for name, weight in module.named_parameters()}
    names = [by_weight.get(weight) for group in optimizer.param_groups for weight in group["params"]]
    numbers = [number for group in state.get("param_groups", ()) for number in group["params"]]
    if numbers != list(range(len(names))) or None in names:
        return
    state["state"] = {names[number]: value for number, value in state["state"].items()}
    state["param_groups"] = [
        {**group, "params": [names[number] for number in group["params"]]} for group in state["param_groups"]
    ]


def decay_groups(parameters: Iterable[nn.Parameter], matrices: Container[nn.Parameter] = ()) -> list[dict[str, Any]]:
    """Group trainable parameters: matrices, and vectors without weight decay; groups that are empty are left out.

    Args:
        parameters: All of them.
        matrices: Those that were matrices once, though they may be flat pieces now, as under FSDP1.

    Example:
        >>> [group.get("weight_decay") for group in decay_groups(nn.Linear(2, 3).parameters())]
        [None, 0.0]
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in parameters:
        if parameter.requires_grad:
            (decayed if parameter.ndim > 1 or parameter in matrices else others).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _leave(data: Any) -> Any:
    return data


def source_losses(sums: Tensor, counts: Tensor, sources: tuple[str, ...]) -> dict[str, Tensor]:
    """Mean loss per target token (nats) of each source in a batch.

    Example:
        >>> import torch
        >>> source_losses(torch.tensor([2.0, 6.0]), torch.tensor([1, 2]), ("coco", "synthetic"))
        {'coco': tensor(2.), 'synthetic': tensor(3.)}
    """
    losses = {}
    for source in sorted(set(sources)):
        rows = [row for row, name in enumerate(sources) if name == source]
        losses[source] = sums[rows].sum() / counts[rows].sum()
    return losses
