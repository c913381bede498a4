"""Base class of trained modules: injected optimizers, deferred loading, checkpoints without frozen weights."""

import math
from collections.abc import Mapping
from multiprocessing.context import get_spawning_popen
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import AdamW, Optimizer

from synth2_lightning.compat.lightning import attributes_of, has_given_hyperparameters, keep_batches
from synth2_lightning.io.checkpoint_files import read_checkpoint
from synth2_lightning.io.locations import resolve
from synth2_lightning.io.recorded_specs import Component, describe
from synth2_lightning.io.trusted_packages import trusting
from synth2_lightning.modules.loading import load_components
from synth2_lightning.modules.saved_module import Module, build_module, make_hyperparameters
from synth2_lightning.modules.status_module import StatusModule
from synth2_lightning.training.accumulation import TokenWeights
from synth2_lightning.training.divergence import check_finite_weights
from synth2_lightning.training.optimizers import (
    OptimizerFactory,
    SchedulerFactory,
    decay_groups,
    find_weights,
    name_states,
    use_fused_kernels,
)
from synth2_lightning.training.partial_checkpoints import check_weight_names, exclude_frozen
from synth2_lightning.training.precision import check_precision
from synth2_lightning.training.ranks import check_same_checkpoint
from synth2_lightning.training.safeguards import add_safeguards
from synth2_lightning.training.seeding import StepSeeds
from synth2_lightning.training.sharding import (
    SPAWNED_PROCESSES,
    check_launcher,
    check_matrix_optimizer,
    check_mesh,
    check_sharded,
    ignore_frozen,
)
from synth2_lightning.types import TokenLoss


class BaseModule(Component, StatusModule):
    """LightningModule whose components are constructor arguments and whose checkpoints contain trained weights only.

    Args:
        optimizer: Factory of the optimizer, called with the groups of
            :func:`~synth2_lightning.training.optimizers.decay_groups`: biases, gains, embeddings and positions have no
            weight decay.
        lr_scheduler: Factory of the learning-rate schedule, called with the optimizer and the number of optimization
            steps, which the trainer must limit; the schedule advances after every step. None keeps the learning rate
            constant.

    Attributes:
        frozen_components: Names of children that are never trained or saved; their ``load()`` restores them.
        trained_steps: Number of optimization steps of the weights, also of those that were loaded from a checkpoint;
            None before the first one.
        training_data: Class and arguments of the datamodule of the last fit; None if unknown.
    """

    frozen_components: ClassVar[tuple[str, ...]] = ()
    trained_steps: int | None = None
    training_data: Mapping[str, Any] | None = None

    def __init__(self, optimizer: OptimizerFactory = AdamW, lr_scheduler: SchedulerFactory | None = None) -> None:
        super().__init__()
        self._make_optimizer = optimizer
        self._make_scheduler = lr_scheduler
        exclude_frozen(self, self.frozen_components)
        self.strict_loading = False  # strategies would require frozen weights; load_state_dict checks the names
        # As class specs, from which load_from_checkpoint rebuilds the components.
        if has_given_hyperparameters():
            self.save_hyperparameters(logger=False)
        else:
            self.save_hyperparameters(make_hyperparameters(self), logger=False)
        self._seeds = StepSeeds()
        self._weights: set[nn.Parameter] = set()
        self._token_weights = TokenWeights()

    @classmethod
    def load_from_checkpoint(
        cls: type[Module],
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Module:
        """Return the module of a checkpoint, with its weights, on the CPU.

        Lightning would construct any class that a checkpoint names. Here every class must be of a trusted package and
        of the annotated type of its argument. The package of this class is trusted; see
        :func:`~synth2_lightning.io.trusted_packages.trusting`.

        Args:
            checkpoint_path: Location of the file.
            map_location: None or the CPU; call ``.to(device)`` afterwards.
            hparams_file: Must be None: the checkpoint contains the hyperparameters.
            strict: Must not be ``False``: all trained weights are required.
            weights_only: Must not be ``False``: checkpoints contain tensors and plain values only.
            **kwargs: Arguments that replace those in the checkpoint.

        Raises:
            FileNotFoundError: If the checkpoint, or a file that a component loads, is missing.
            ValueError: If the checkpoint is damaged, may contain code, is of another class or names classes that are
                not trusted, or if an argument has another value than allowed.
        """
        if map_location not in (None, "cpu", torch.device("cpu")) or hparams_file is not None:
            raise ValueError(
                f"{cls.__name__}.load_from_checkpoint() got map_location={map_location!r} and hparams_file="
                f"{hparams_file!r}; expected neither: it is loaded on the CPU, with the hyperparameters in it."
            )
        if strict is False or weights_only is False:
            raise ValueError(
                f"{cls.__name__}.load_from_checkpoint() got strict={strict} and weights_only={weights_only}; expected "
                "neither to be False: a checkpoint contains all trained weights, as tensors and plain values only."
            )
        path = resolve(checkpoint_path, "checkpoint")
        with trusting([cls.__module__.partition(".")[0]]):
            return build_module(cls, read_checkpoint(path), path, kwargs)

    def configure_callbacks(self) -> list[Callback]:
        """Run before a stage: adds the callbacks of :func:`~synth2_lightning.training.safeguards.add_safeguards`."""
        add_safeguards(self.trainer)
        return []

    def setup(self, stage: str) -> None:
        """Run before a stage: checks precision, strategy and ranks' checkpoints; turns off conversion of batches."""
        check_precision(self)
        if stage == "fit":
            check_launcher(self.trainer.strategy)
            self._seeds.run_seed = None  # of an earlier fit, or of the run that this module was loaded from
        check_same_checkpoint(self.trainer)
        keep_batches(self.trainer)  # components cast their own inputs

    def __getstate__(self) -> dict[str, Any]:
        """Raise if pickled for another process, which ``ddp_spawn`` does before it calls any hook."""
        if get_spawning_popen() is not None:
            raise ValueError(SPAWNED_PROCESSES)
        state: dict[str, Any] = super().__getstate__()
        return state

    def configure_model(self) -> None:
        """Run on each rank before a stage, and by ``load_from_checkpoint``: loads the weights of all components."""
        trainer = self._find_trainer()
        if trainer is not None:
            reset_seed()  # strategies with several processes do so too; new weights then equal those of one process
        load_components(self, is_logged=trainer is not None)
        for name in self.frozen_components:
            if isinstance(part := getattr(self, name), nn.Module):
                part.requires_grad_(False)
        if trainer is not None:
            strategy = trainer.strategy
            if isinstance(strategy, FSDPStrategy):
                if type(self).shard is BaseModule.shard:
                    raise self._cannot_shard("FSDPStrategy")
                self._weights = find_weights(self)
            ignore_frozen(self, strategy)
        if self.device_mesh is not None:
            check_mesh(self.device_mesh)
            self.shard(self.device_mesh)
            check_sharded(self)

    def _find_trainer(self) -> Trainer | None:
        try:
            return self.trainer
        except RuntimeError:  # not attached to a trainer
            return None

    def shard(self, mesh: DeviceMesh) -> None:
        """Shard the trained components over the mesh; override it to support ``ModelParallelStrategy``.

        Args:
            mesh: Mesh of ``ModelParallelStrategy``, with a ``data_parallel`` dimension.

        Raises:
            ValueError: If not overridden: without sharding, gradients would not be reduced over ranks.
        """
        raise self._cannot_shard("ModelParallelStrategy")

    def _cannot_shard(self, strategy: str) -> ValueError:
        return ValueError(
            f"{type(self).__name__} cannot shard its weights, which {strategy} requires; expected trainer.strategy=ddp "
            "or one device. Use one of them, or override shard(mesh) in a subclass."
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer of the trainable parameters, and its schedule.

        Raises:
            ValueError: If no parameter is trainable, the optimizer needs matrices and the strategy flattens them, or
                the schedule needs a number of steps and the trainer has no limit.
        """
        groups = self.parameter_groups()
        if not groups:
            raise ValueError(
                f"{type(self).__name__} has no trainable parameter: every component is frozen. Expected at least one. "
                "Unfreeze a component, or use `synth2 validate` for a module without training."
            )
        optimizer = self._make_optimizer(groups)
        use_fused_kernels(optimizer)
        optimizer.register_load_state_dict_post_hook(use_fused_kernels)  # the state has the settings of its own run
        if trainer := self._find_trainer():
            check_matrix_optimizer(optimizer, trainer.strategy)
        if self._make_scheduler is None:
            return optimizer
        schedule = self._make_scheduler(optimizer, self._count_steps())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _count_steps(self) -> int:
        num_steps = self.trainer.estimated_stepping_batches
        if not 0 <= num_steps < math.inf:  # without max_steps it is -1 for an iterable dataset of unknown length
            raise ValueError(
                f"The learning-rate schedule needs the number of optimization steps, which is unknown with max_steps="
                f"{self.trainer.max_steps} and max_epochs={self.trainer.max_epochs}. Expected a limit. Set "
                "--trainer.max_steps, also in addition to max_time, or remove model.init_args.lr_scheduler."
            )
        return int(num_steps)

    def mean_over_ranks(self, losses: TokenLoss) -> tuple[Tensor, Tensor]:
        """Return the loss of a training step to differentiate, and the mean per target token over all ranks (nats).

        Call it at most once per batch. Accumulated batches have the gradient of one joined batch, except under
        strategies that accumulate themselves (DeepSpeed), which average the means of the batches.
        """
        loss, mean = self._status.mean_over_ranks(losses)
        trainer = self._find_trainer()
        if trainer is None or trainer.accumulate_grad_batches == 1 or trainer.strategy.handles_gradient_accumulation:
            return loss, mean
        return self._token_weights.scale_loss(loss, self._status.num_tokens), mean

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Run before each optimization step: counts it, and weights accumulated batches by their target tokens."""
        self.trained_steps = self.trainer.global_step + 1  # the trainer does not know of weights loaded later
        self._token_weights.scale_gradients(self.parameters(), self.trainer.accumulate_grad_batches)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Run before an optimization step: clips as Lightning does, and also by norm over all ranks under FSDP1."""
        model = self.trainer.strategy.model
        if isinstance(model, FullyShardedDataParallel) and gradient_clip_val and gradient_clip_algorithm != "value":
            model.clip_grad_norm_(gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the trainable parameters in groups for the optimizer; override it for other settings per component."""
        return decay_groups(self, self._weights)

    def on_train_start(self) -> None:
        """Run before the first step: records the data, and sets the run's seed, unless it is that of a checkpoint."""
        super().on_train_start()
        self.training_data = _describe_data(self.trainer)
        self._token_weights = TokenWeights()
        if self._seeds.run_seed is None:
            self._seeds.run_seed = self.trainer.strategy.broadcast(torch.initial_seed())

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Run before each batch: seeds the step."""
        self._seeds.start_step(self.trainer.fit_loop.total_batch_idx, self.global_rank)

    def sample_rows(self, num_rows: int, width: int) -> Float[Tensor, "rows width"]:
        """Return uniform numbers in [0, 1) for the rows of a training step, such as for masks of its images.

        They do not depend on the number of ranks: each rank gets its rows of those that one process would sample.
        """
        return self._seeds.sample_rows(num_rows, width)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Run when a checkpoint is saved: checks that weights are finite; adds seed and names of optimizer states."""
        super().on_save_checkpoint(checkpoint)
        check_finite_weights(self)
        checkpoint["seed"] = self._seeds.run_seed
        # FSDP2 numbers weights by their order in the model, torch's optimizers by that in their groups.
        for state, optimizer in zip(checkpoint.get("optimizer_states", ()), self.trainer.optimizers, strict=False):
            name_states(state, optimizer, self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Run when a checkpoint is loaded: restores the run's seed and the number of steps.

        Raises:
            ValueError: If the number is not an integer, as in a crafted file: paths of scores contain it.
        """
        self._seeds.run_seed = checkpoint.get("seed")
        step = checkpoint.get("global_step")
        if not isinstance(step, int | None):
            raise ValueError(f"The checkpoint has the global_step {step!r:.100}; expected a number of steps.")
        self.trained_steps = step

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load trained weights.

        Raises:
            ValueError: If a trained weight is missing, or a name is unknown.
        """
        check_weight_names(self, state_dict)
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def num_trainable(self) -> int:
        """Return the number of trainable parameters, as scalars."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)


def _describe_data(trainer: Trainer) -> Mapping[str, Any] | None:
    datamodule = attributes_of(trainer).datamodule
    try:
        return None if datamodule is None else describe(datamodule)
    except TypeError:  # it cannot be described, such as one of a notebook
        return None
