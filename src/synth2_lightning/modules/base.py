"""Base of all LightningModules: injected optimization, deferred loading, partial checkpoints."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from multiprocessing.context import get_spawning_popen
from typing import Any, ClassVar, TypeVar

import torch
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import AdamW, Optimizer

from synth2_lightning.compat.lightning import keep_batches
from synth2_lightning.io.checkpoint_files import read_checkpoint
from synth2_lightning.io.locations import resolve
from synth2_lightning.io.trusted_packages import trusting
from synth2_lightning.modules.divergence import refuse_nonfinite_loss, refuse_nonfinite_weights
from synth2_lightning.modules.optimizers import OptimizerFactory, SchedulerFactory, decay_groups, name_states
from synth2_lightning.modules.partial_checkpoints import leave_out_frozen, refuse_other_weights
from synth2_lightning.modules.ranks import refuse_different_checkpoints
from synth2_lightning.modules.saved_module import build_module
from synth2_lightning.modules.seeding import StepSeeds
from synth2_lightning.modules.sharding import (
    SPAWNED_PROCESSES,
    keep_frozen_whole,
    refuse_matrix_optimizer,
    refuse_spawned_processes,
    refuse_tensor_parallel,
)

_Module = TypeVar("_Module", bound=LightningModule)


class BaseModule(LightningModule):
    """A LightningModule whose parts are injected and whose checkpoints hold trained weights only.

    Args:
        optimizer: Makes the optimizer from parameter groups. Weight decay reaches matrices only; biases,
            gains and other vectors are in a group without.
        lr_scheduler: Makes the schedule, stepped after every optimization step, from the optimizer and the
            number of steps that the trainer will take. None keeps the learning rate constant.

    Attributes:
        frozen_parts: Names of children that are never trained and never saved; ``load()`` brings them back.
    """

    frozen_parts: ClassVar[tuple[str, ...]] = ()

    def __init__(self, optimizer: OptimizerFactory = AdamW, lr_scheduler: SchedulerFactory | None = None) -> None:
        super().__init__()
        self._make_optimizer = optimizer
        self._make_scheduler = lr_scheduler
        leave_out_frozen(self, self.frozen_parts)
        self.strict_loading = False  # strategies compare names with those of all weights; load_state_dict does it right
        # Under the command line Lightning records the run file's text, from which load_from_checkpoint builds
        # the parts again. In a notebook the arguments are live objects: only the plain ones can be recorded.
        # This must stand in __init__ itself: Lightning reads the arguments off the calling frames.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is an instance of `nn.Module`.*")
            self.save_hyperparameters(logger=False)
        self._seeds = StepSeeds()
        self._matrices: set[nn.Parameter] = set()
        live = [name for name, value in self.hparams.items() if isinstance(value, nn.Module) or callable(value)]
        self.remove_ignored_hparams(live)
        # As run files write them: a checkpoint is read with tensors and plain values only.
        self.hparams.update({name: asdict(value) for name, value in self.hparams.items() if is_dataclass(value)})

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
        this class is; see :func:`~synth2_lightning.io.class_specs.trusting`) and of the type that its place asks for.

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
        """Leave batches as they are delivered, and have all processes resume from the same checkpoint.

        Raises:
            ValueError: If processes were started in a way that loses what they train, or their checkpoints differ.
        """
        if stage == "fit":
            refuse_spawned_processes(self.trainer.strategy)
        refuse_different_checkpoints(self.trainer)
        keep_batches(self.trainer)  # what needs another precision is cast where it is read

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be sent to another process, as ``ddp_spawn`` does before any hook is called.

        Raises:
            ValueError: While a process is being spawned.
        """
        if get_spawning_popen() is not None:
            raise ValueError(SPAWNED_PROCESSES)
        state: dict[str, Any] = super().__getstate__()
        return state

    def configure_model(self) -> None:
        """Bring the weights of every part that has some; called on each rank and by ``load_from_checkpoint``."""
        reset_seed()  # as strategies of several processes do, so that new weights are those of one process
        for part in self.children():
            if callable(load := getattr(part, "load", None)):
                load()
        for name in self.frozen_parts:
            if isinstance(part := getattr(self, name), nn.Module):
                part.requires_grad_(False)
        if trainer := self._find_trainer():
            strategy = trainer.strategy
            if isinstance(strategy, FSDPStrategy):
                if type(self).shard is BaseModule.shard:
                    raise self._cannot_shard("FSDPStrategy")
                self._matrices = {weight for weight in self.parameters() if weight.ndim > 1}
            keep_frozen_whole(self, strategy)
        if self.device_mesh is not None:
            refuse_tensor_parallel(self.device_mesh)
            self.shard(self.device_mesh)

    def _find_trainer(self) -> Trainer | None:
        try:
            return self.trainer
        except RuntimeError:  # not attached to one
            return None

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
        if trainer := self._find_trainer():
            refuse_matrix_optimizer(optimizer, trainer.strategy)
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
        """Set the run's seed, unless a checkpoint did."""
        if self._seeds.run_seed is None:
            self._seeds.run_seed = self.trainer.strategy.broadcast(torch.initial_seed())

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step."""
        self._seeds.start_step(self.trainer.fit_loop.total_batch_idx, self.global_rank)

    def draw_alike(self) -> torch.Generator:
        """Return a generator of the same numbers on all ranks in a training step, such as for masks of the batch."""
        return self._seeds.shared_generator()

    def on_before_backward(self, loss: Tensor) -> None:
        """Stop the run at a loss that is not finite.

        Raises:
            FloatingPointError: If the loss of any rank is NaN or infinite.
        """
        refuse_nonfinite_loss(self, loss)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the run's seed; refuse weights that are not finite, so that the last good checkpoint is kept."""
        refuse_nonfinite_weights(self)
        checkpoint["seed"] = self._seeds.run_seed
        # FSDP2 takes numbers for the place of a weight in the model, though torch's optimizers count by their groups.
        for state, optimizer in zip(checkpoint.get("optimizer_states", ()), self.trainer.optimizers, strict=False):
            name_states(state, optimizer, self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the run's seed."""
        self._seeds.run_seed = checkpoint.get("seed")

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load trained weights.

        Raises:
            ValueError: If a trained weight is missing, or a name is unknown.
        """
        refuse_other_weights(self, state_dict)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def num_trainable(self) -> int:
        """Number of trainable scalars."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
