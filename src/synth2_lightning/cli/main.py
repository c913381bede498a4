"""Dispatch of ``synth2`` to its commands.

Large libraries are not imported here, so that ``--help``, ``--version`` and usage errors take no time.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Literal

from synth2_lightning import __version__
from synth2_lightning.cli.arguments import CommandParser, make_parser, read_docstring
from synth2_lightning.cli.commands.cache import cache
from synth2_lightning.cli.commands.caption import caption
from synth2_lightning.cli.commands.consolidate import consolidate
from synth2_lightning.cli.commands.deduplicate import deduplicate
from synth2_lightning.cli.commands.demo import demo
from synth2_lightning.cli.commands.export import export
from synth2_lightning.cli.commands.init import init
from synth2_lightning.cli.commands.push import push
from synth2_lightning.cli.commands.report import report
from synth2_lightning.cli.commands.score import score
from synth2_lightning.cli.commands.select import select
from synth2_lightning.cli.commands.vocabulary import vocabulary
from synth2_lightning.cli.commands.weights import weights
from synth2_lightning.cli.errors import UsageError, report_errors, suggest
from synth2_lightning.cli.trainer import TRAINER_COMMANDS, run_trainer
from synth2_lightning.io.console import make_output_visible


def completion(shell: Literal["bash", "zsh"]) -> None:
    """Print the completion script of a shell.

    Write it to a file that the shell reads, such as ~/.local/share/bash-completion/completions/synth2 for bash. In a
    new shell, the tabulator key then completes commands, options, run files and paths.

    Args:
        shell: The shell, bash or zsh.

    Example:
        synth2 completion bash
    """
    from synth2_lightning.cli.completion import write_completion

    sys.stdout.write(write_completion(shell, COMMANDS))


_COMMANDS = (
    *(init, weights, cache, vocabulary, caption, report, score, demo, export, push),
    *(consolidate, deduplicate, select, completion),
)
COMMANDS: dict[str, Callable[..., int | None]] = {command.__name__: command for command in _COMMANDS}
"""The commands that need no trainer, by name. They return an exit code, or ``None`` for 0."""


def main(args: Sequence[str] | None = None) -> None:
    """Run ``synth2``; user errors end in a message and exit code 1 or 2, not in a traceback.

    Args:
        args: Words of the command line; by default those of this process.

    Example:
        >>> main(["--version"])
        Traceback (most recent call last):
        SystemExit: 0
    """
    # Child processes (ranks, data loader workers, compilers) must not import from the current folder.
    os.environ["PYTHONSAFEPATH"] = "1"
    make_output_visible()
    if not sys.stderr.isatty():
        # Bars of tqdm (transformers, datasets) would fill a log with unreadable lines; also of child processes.
        os.environ.setdefault("TQDM_DISABLE", "1")
    words = list(sys.argv[1:] if args is None else args) or ["--help"]
    with report_errors():
        if words[0] in TRAINER_COMMANDS:
            run_trainer(words)
        elif command := COMMANDS.get(words[0]):
            arguments = make_parser(command).parse_command(words[1:])
            if code := command(**arguments):
                sys.exit(code)
        else:
            _run_without_command(words)


def _run_without_command(words: Sequence[str]) -> None:
    """Print the help or the version, or raise on an unknown command or option."""
    names = [*TRAINER_COMMANDS, *COMMANDS]
    if not words[0].startswith("-"):
        raise UsageError(
            f"There is no command {words[0]!r}.{suggest(words[0], names)} Expected one of: {', '.join(names)}."
        )
    parser = CommandParser(
        prog="synth2",
        description="Train vision-language models on synthetic captions and synthetic image embeddings.",
        epilog="Each command has its own --help. Start with: synth2 fit --config mixed.yaml",
    )
    parser.add_argument("--version", action="version", version=f"synth2 {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    summaries = {name: read_docstring(command).summary for name, command in COMMANDS.items()}
    for name, summary in {**TRAINER_COMMANDS, **summaries}.items():
        commands.add_parser(name, help=summary)
    parser.parse_command(words)
