"""LightningCLI with trusted packages, checked checkpoints and checked settings."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import Namespace, set_parsing_settings
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from synth2_lightning import __version__
from synth2_lightning.callbacks.checkpoint_io import CheckedCheckpointIO
from synth2_lightning.callbacks.progress_log import ProgressLogCallback
from synth2_lightning.callbacks.run_lock import RunLockCallback
from synth2_lightning.callbacks.run_settings import RunSettingsCallback, collect_settings
from synth2_lightning.callbacks.stopping import SigtermCallback
from synth2_lightning.callbacks.trainer_settings import MonitorCheckCallback, check_trainer_settings
from synth2_lightning.cli.checkpoint_selection import check_content, check_settings, find_best, find_last
from synth2_lightning.cli.errors import hide_noise
from synth2_lightning.cli.logged_config import LoggedConfigCallback
from synth2_lightning.cli.precision import HardwareTrainer, resolve_precision
from synth2_lightning.cli.run_files import typed_names
from synth2_lightning.cli.setting_errors import explain_denied_import, explain_setting_error, list_own_classes
from synth2_lightning.compat.lightning import attributes_of
from synth2_lightning.datamodules.real import find_image_encoder
from synth2_lightning.io.trusted_packages import TRUSTED_PACKAGES, check_no_functions, trusting
from synth2_lightning.io.yaml_text import check_run_files
from synth2_lightning.training.sharding import check_launcher

_RESUME_WITH_CHANGES = (
    "with fit --ckpt_path: resume although settings or training data differ from the checkpoint's; the differences are "
    "logged, and results differ from those of an uninterrupted run"
)


def run_lightning(words: Sequence[str], trust: Sequence[str]) -> "CommandLine":
    """Run a trainer command, and return the finished command line with its trainer.

    Args:
        words: Arguments of the command line, with the paths of the run files.
        trust: Packages whose classes run files and checkpoints may name, besides the trusted ones.

    Raises:
        argparse.ArgumentError: If a run file or an argument has an unknown setting or an invalid value.
        FileNotFoundError: If there is no checkpoint.
        ValueError: If settings are inconsistent.
    """
    check_run_files()
    hide_noise()
    # For the whole process: run files may name classes of these packages only, and values of type `Any` are not built.
    set_parsing_settings(
        instantiate_subclass_spec_in_any=False,
        config_read_mode_fsspec_enabled=False,  # parts of a run file are not downloaded from URLs
        import_path_denylist=["*"],
        import_path_allowlist=[*TRUSTED_PACKAGES, *trust, *typed_names(words)],
    )
    run_lock = RunLockCallback()
    try:
        with trusting(trust):
            return CommandLine(words, [SigtermCallback(), run_lock, ProgressLogCallback()])
    finally:
        run_lock.release()  # the process may continue after SIGTERM, if a caller catches it


class RunFileParser(LightningArgumentParser):
    """A parser without abbreviations that explains mistyped settings, classes and values, and denied imports."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the error with an explanation."""
        parser = getattr(ex, "subcommand_parser", self)  # the one of `fit` in that of all commands
        defaults = parser.get_defaults(skip_validation=True)
        super().error(explain_denied_import(explain_setting_error(message, defaults)), ex)


class CommandLine(LightningCLI):
    """LightningCLI with checked checkpoints and settings.

    Args:
        words: Arguments of the command line.
        callbacks: Callbacks of every run, in addition to those of its run file.
    """

    def __init__(self, words: Sequence[str], callbacks: Sequence[Callback]) -> None:
        self._words = list(words)
        super().__init__(
            LightningModule,
            LightningDataModule,
            trainer_class=HardwareTrainer,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults={"callbacks": list(callbacks)},
            save_config_callback=LoggedConfigCallback,
            # Lightning would abort a second run in the same folder, which is intended here.
            save_config_kwargs={"overwrite": True},
            parser_class=RunFileParser,
            # `report_errors` prints the parser's errors, with control characters escaped.
            parser_kwargs={
                "version": __version__,
                "exit_on_error": False,
                **{name: {"exit_on_error": False} for name in self.subcommands()},
            },
            args=self._words,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the option ``--resume_with_changes``, and pass the model's encoder to datamodules that read images."""
        parser.epilog = _list_components()
        parser.add_argument("--resume_with_changes", type=bool, default=False, help=_RESUME_WITH_CHANGES)
        parser.link_arguments(
            "model", "data.init_args.image_encoder", compute_fn=find_image_encoder, apply_on="instantiate"
        )

    def before_instantiate_classes(self) -> None:
        """Raise on settings before objects are built."""
        config = self.config[self.config.subcommand]
        restore_nulls(config, self._words)
        check_no_functions(config, typed_names(self._words))
        _check_deepspeed(config.trainer.strategy)
        if config.weights_only is False:
            raise ValueError(
                "weights_only is false, with which a checkpoint may run code; expected true, or no value. Checkpoints "
                "of `synth2 fit` hold tensors and plain values only."
            )
        # The run's config.yaml names the precision that was used.
        config.trainer.precision = resolve_precision(config.trainer.precision, config.trainer.accelerator)
        # Removed, because in the run's config.yaml it would allow changes to all later commands.
        self._allows_changes = config.pop("resume_with_changes")

    def after_instantiate_classes(self) -> None:
        """Raise on inconsistent settings, and select the checkpoint."""
        trainer, is_fit = self.trainer, self.subcommand == "fit"
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # the default
            trainer.strategy.checkpoint_io = CheckedCheckpointIO()
        given = self.config_init[self.subcommand]
        dumped = self.parser.dump(self.config, skip_none=False, skip_link_targets=False, format="json")
        settings = collect_settings(json.loads(dumped)[self.subcommand], trainer)
        watch = RunSettingsCallback(settings, self._allows_changes)
        if is_fit:
            attributes_of(trainer).callbacks += [MonitorCheckCallback(), watch]
        check_launcher(trainer.strategy)
        check_trainer_settings(trainer, is_fit and given["ckpt_path"] is not None)
        # Set on the trainer instead of passed to its method, so that hooks before loading can read the path.
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
        # Lightning silently overrides run files and arguments by the settings in a checkpoint, such as a protocol's
        # number of beams. These settings are used only without a run file.
        if not self.config[self.config.subcommand].config:
            super()._parse_ckpt_path()


def _list_components() -> str:
    """Return the classes that a run file may name, for the help."""
    kinds = ("Module", "DataModule", "Source", "Encoder", "Decoder", "Callback")
    paths = {kind: [path for path in list_own_classes(f"{kind.lower()}s") if path.endswith(kind)] for kind in kinds}
    lists = " ".join(f"{kind}s: {', '.join(each)}." for kind, each in paths.items())
    return f"{lists} Arguments of a class: --model.help CLASS, --data.help CLASS."


def restore_nulls(config: Namespace, words: Sequence[str]) -> None:
    """Set settings that the command line gives as ``null`` to ``None``.

    jsonargparse 4.53 sets those of a class in the settings of another class to the text ``"None"`` if they may be text.

    Args:
        config: Settings of the command, changed in place.
        words: Arguments of the command line.
    """
    for word, following in pairwise([*words, ""]):
        option, _, value = word.partition("=")
        if (value or following) != "null" or not option.startswith("--"):
            continue
        key = _complete_key(config, option.removeprefix("--"))
        if config.get(key) == "None":
            config[key] = None


def _complete_key(config: Namespace, key: str) -> str:
    """Return a key with the ``init_args`` that it leaves out."""
    found: list[str] = []
    for part in key.split("."):
        node = config.get(".".join(found)) if found else config
        if isinstance(node, Namespace) and part not in node and "init_args" in node:
            found.append("init_args")
        found.append(part)
    return ".".join(found)


def _check_deepspeed(strategy: object) -> None:
    """Raise on DeepSpeed if it is not installed; the parser's message would be long."""
    name = str(getattr(strategy, "class_path", strategy))
    if "deepspeed" in name.lower() and find_spec("deepspeed") is None:
        raise ValueError(
            f"trainer.strategy is {name}, but DeepSpeed is not installed; expected an installation (pip install "
            "deepspeed), or another strategy, such as overlays/strategy/fsdp.yaml."
        )
