"""Lightning's command line over run files, and the settings that it refuses."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from jsonargparse import set_parsing_settings
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from synth2_lightning import __version__
from synth2_lightning.callbacks.checkpoint_io import CheckedCheckpointIO
from synth2_lightning.callbacks.run_lock import RunLockCallback
from synth2_lightning.callbacks.run_settings import RunSettingsCallback, collect_settings
from synth2_lightning.callbacks.stopping import SigtermCallback
from synth2_lightning.callbacks.trainer_settings import MonitorCheckCallback, refuse_settings
from synth2_lightning.cli.checkpoint_selection import check_content, check_settings, find_best, find_last
from synth2_lightning.cli.errors import hide_noise
from synth2_lightning.cli.run_files import explain_denied_import, typed_names
from synth2_lightning.datamodules.real import find_image_encoder
from synth2_lightning.io.trusted_packages import TRUSTED_PACKAGES, refuse_functions, trusting
from synth2_lightning.io.yaml_text import check_run_files
from synth2_lightning.modules.sharding import refuse_spawned_processes

_RESUME_WITH_CHANGES = (
    "fit --ckpt_path: resume although settings or training data differ from those of the checkpoint; what differs is "
    "logged, and the run will not end as one that was not stopped"
)


def run_lightning(words: Sequence[str], trust: Sequence[str]) -> "CommandLine":
    """Run a trainer command.

    Args:
        words: Of the command line, with the paths of the run files.
        trust: Names of packages whose classes run files and checkpoints may name, besides the trusted ones.

    Returns:
        The finished command line with its trainer.

    Raises:
        argparse.ArgumentError: If the run files or the words hold a setting that does not exist, or a wrong value.
        FileNotFoundError: If there is no checkpoint.
        ValueError: If settings do not fit together.
    """
    check_run_files()
    hide_noise()
    # For the whole process: a run file may name classes of these packages only, and nothing is built under `Any`.
    set_parsing_settings(
        instantiate_subclass_spec_in_any=False,
        config_read_mode_fsspec_enabled=False,  # no part of a run file is fetched because the file names an address
        import_path_denylist=["*"],
        import_path_allowlist=[*TRUSTED_PACKAGES, *trust, *typed_names(words)],
    )
    run_lock = RunLockCallback()
    try:
        with trusting(trust):
            return CommandLine(words, [SigtermCallback(), run_lock])
    finally:
        run_lock.release()  # the process may go on: SIGTERM ends it only where nothing catches that


class RunFileParser(LightningArgumentParser):
    """A parser that names the remedy where it did not import what a run file names."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what was wrong."""
        super().error(explain_denied_import(message), ex)


class CommandLine(LightningCLI):
    """Lightning's command line, with checked checkpoints and settings.

    Args:
        words: Of the command line.
        callbacks: Of every run, besides those of its run file.
    """

    def __init__(self, words: Sequence[str], callbacks: Sequence[Callback]) -> None:
        self._words = list(words)
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults={"callbacks": list(callbacks)},
            # A second run in the same folder is a user's wish, not an error; Lightning would abort it.
            save_config_kwargs={"overwrite": True},
            parser_class=RunFileParser,
            # What the parser says of a run file is printed by `report_errors`, which escapes control characters.
            parser_kwargs={
                "version": __version__,
                "exit_on_error": False,
                **{name: {"exit_on_error": False} for name in self.subcommands()},
            },
            args=self._words,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the option ``--resume_with_changes``, and give datamodules that read images the model's encoder."""
        parser.add_argument("--resume_with_changes", type=bool, default=False, help=_RESUME_WITH_CHANGES)
        parser.link_arguments(
            "model", "data.init_args.image_encoder", compute_fn=find_image_encoder, apply_on="instantiate"
        )

    def before_instantiate_classes(self) -> None:
        """Refuse settings before anything is built."""
        config = self.config[self.config.subcommand]
        refuse_functions(config, typed_names(self._words))
        _check_deepspeed(config.trainer.strategy)
        if config.weights_only is False:
            raise ValueError(
                "weights_only is false, with which a checkpoint may run any code; expected true, or nothing. What "
                "`synth2 fit` writes holds tensors and plain values only."
            )
        # Of this command alone: in the config.yaml of its run it would allow changes to all that follow.
        self._allows_changes = config.pop("resume_with_changes")

    def after_instantiate_classes(self) -> None:
        """Refuse settings that do not fit together, and select the checkpoint."""
        trainer, is_fit = self.trainer, self.subcommand == "fit"
        _check_precision(trainer.precision)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # the run file names no other
            trainer.strategy.checkpoint_io = CheckedCheckpointIO()
        given = self.config_init[self.subcommand]
        dumped = self.parser.dump(self.config, skip_none=False, skip_link_targets=False, format="json")
        settings = collect_settings(json.loads(dumped)[self.subcommand], trainer)
        watch = RunSettingsCallback(settings, self._allows_changes)
        if is_fit:
            trainer.callbacks += [MonitorCheckCallback(), watch]  # type: ignore[attr-defined]  # Lightning's own
        refuse_spawned_processes(trainer.strategy)
        refuse_settings(trainer, is_fit and given["ckpt_path"] is not None)
        # Given to the trainer and not to its method, a path is known to the hooks that come before it is read.
        if given["ckpt_path"] != "hpc":
            path, given["ckpt_path"] = given["ckpt_path"], None
            if path == "last":
                path = find_last(trainer, watch, is_fit)
            elif path == "best":
                path = find_best(trainer, watch)
            trainer.ckpt_path = path
        if checkpoint := trainer.ckpt_path:
            check_content(Path(checkpoint), trainer.strategy)
            if is_fit:
                check_settings(Path(checkpoint), watch)

    def _parse_ckpt_path(self) -> None:
        # Lightning has the settings in a checkpoint overrule run files and arguments, without a word: a protocol's
        # beams would be those of the training. They are for those who name no run file.
        if not self.config[self.config.subcommand].config:
            super()._parse_ckpt_path()


def _check_precision(precision: str) -> None:
    """Refuse precisions that cast frozen weights: a codebook that is cast is another codebook."""
    expected = ("32-true", "bf16-mixed", "16-mixed")
    if precision not in expected:
        raise ValueError(
            f"trainer.precision is {precision!r}, which would cast the frozen networks, and with them the codes that "
            f"image tokens stand for; expected one of {', '.join(expected)}."
        )


def _check_deepspeed(strategy: object) -> None:
    """Name DeepSpeed if it is missing, before the parser does at the end of a long message."""
    name = str(getattr(strategy, "class_path", strategy))
    if "deepspeed" in name.lower() and find_spec("deepspeed") is None:
        raise ValueError(
            f"trainer.strategy is {name}, and DeepSpeed is not installed here; expected it beside this package (pip "
            "install deepspeed), or another strategy, such as that of overlays/strategy/fsdp.yaml."
        )
