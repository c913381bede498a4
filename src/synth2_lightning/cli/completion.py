"""Completion scripts of shells, by shtab."""

from collections.abc import Callable, Mapping

import shtab

from synth2_lightning.cli.arguments import CommandParser, make_parser, read_docstring
from synth2_lightning.cli.run_files import run_file_folder
from synth2_lightning.cli.trainer import OPTIONS, TRAINER_COMMANDS

_PREAMBLE = {
    "bash": """_synth2_run_file() {{
  case "$1" in
    */*) compgen -W "{others}" -- "$1" ;;
    *) compgen -W "{names}" -- "$1" ;;
  esac
  compgen -f -X '!*.yaml' -- "$1"
  compgen -d -S / -- "$1"
}}""",
    "zsh": """_synth2_run_file() {{
  _alternative 'included:included run files:({names} {others})' 'files:run files:_files -g "*.yaml(-.)"'
}}""",
}
_RUN_FILE = dict.fromkeys(_PREAMBLE, "_synth2_run_file")


def write_completion(shell: str, commands: Mapping[str, Callable[..., object]]) -> str:
    """Return the completion script of a shell: commands, options, included run files and paths.

    Args:
        shell: ``bash`` or ``zsh``.
        commands: The commands that need no trainer, by name.
    """
    parser = CommandParser(prog="synth2")
    parser.add_argument("--version", action="store_true")
    subparsers = parser.add_subparsers()
    for name, summary in TRAINER_COMMANDS.items():
        trainer = subparsers.add_parser(name, help=summary)
        for option in sorted(OPTIONS - {"--help"}):
            action = trainer.add_argument(option)
            action.complete = _RUN_FILE if option == "--config" else shtab.FILE  # type: ignore[attr-defined]
    for name, command in commands.items():
        own = make_parser(command)
        for action in own.arguments:
            if action.nargs != 0 and not action.choices:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        subparsers.add_parser(name, help=read_docstring(command).summary, parents=[own], add_help=False)
    folder = run_file_folder()
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml"))
    names, others = (" ".join(path for path in paths if ("/" in path) is is_deep) for is_deep in (False, True))
    return shtab.complete(parser, shell, preamble=_PREAMBLE[shell].format(names=names, others=others)) + "\n"
