"""Argument parsers from signatures.

Positional parameters become positional arguments, keyword-only parameters become options with the same names. The
docstring is the help. Values of ``str`` and ``Path`` are not interpreted: jsonargparse, which parses run files, would
parse arguments as YAML, where ``null``, ``1e5`` and ``[a]`` are not strings, and a list is a single argument.
"""

import argparse
import inspect
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, NoReturn, Union, get_args, get_origin, get_type_hints

from synth2_lightning.cli.errors import UsageError, suggest
from synth2_lightning.io.paths import expand_home

_METAVARS = {str: "TEXT", int: "INT", float: "FLOAT"}


class Docstring(NamedTuple):
    """The sections of a docstring that are used in help texts.

    Attributes:
        summary: Its first sentence.
        description: The text before the sections.
        arguments: Descriptions by name.
        example: The section ``Example``, empty if there is none.
    """

    summary: str
    description: str
    arguments: dict[str, str]
    example: str


class CommandParser(argparse.ArgumentParser):
    """A parser without abbreviations, whose errors are raised.

    Attributes:
        arguments: The arguments that were added, ``--help`` included.

    Example:
        >>> parser = CommandParser(prog="synth2 demo")
        >>> _ = parser.add_argument("--port", type=int)
        >>> parser.parse_command(["--prot", "80"])  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        UsageError: There is no option '--prot'. Did you mean '--port'? See synth2 demo --help.
    """

    def __init__(self, **settings: Any) -> None:
        self.arguments: list[argparse.Action] = []
        super().__init__(allow_abbrev=False, **settings)

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """Add an argument, and record it."""
        self.arguments.append(super().add_argument(*names, **settings))
        return self.arguments[-1]

    def parse_command(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the arguments by name.

        Raises:
            UsageError: If an option is unknown, or an argument is missing, superfluous or invalid.
        """
        check_options(words, {name for action in self.arguments for name in action.option_strings}, self.prog)
        return vars(self.parse_args(words))

    def error(self, message: str) -> NoReturn:
        """Raise a usage error instead of printing it."""
        raise UsageError(f"{message}. See {self.prog} --help.")


def make_parser(command: Callable[..., object]) -> CommandParser:
    """Return the parser of a function's arguments.

    Args:
        command: Function whose parameters have the types ``str``, ``int``, ``float``, ``Path``, ``Literal``, ``bool``
            (an option that is off by default), sequences of these, or optional. Its docstring describes all of them.

    Raises:
        KeyError: If the docstring does not describe a parameter.

    Example:
        >>> def double(numbers: Sequence[int], *, scale: float = 2.0) -> None:
        ...     '''Scale numbers.
        ...
        ...     Args:
        ...         numbers: The numbers.
        ...         scale: The factor.
        ...     '''
        >>> make_parser(double).parse_command(["3", "4", "--scale", "0.5"])
        {'numbers': [3, 4], 'scale': 0.5}
    """
    docstring = read_docstring(command)
    epilog = f"Example: {docstring.example}" if docstring.example else None
    parser = CommandParser(prog=f"synth2 {command.__name__}", description=docstring.description, epilog=epilog)
    hints = get_type_hints(command)
    for name, parameter in inspect.signature(command).parameters.items():
        _add_argument(parser, parameter, hints[name], docstring.arguments[name])
    return parser


def read_docstring(command: Callable[..., object]) -> Docstring:
    """Return the sections of a docstring in Google's style."""
    text = (inspect.getdoc(command) or "").replace("``", "`")
    description, *sections = re.split(r"^(Args|Returns|Raises|Example):\n", text, flags=re.MULTILINE)
    contents = dict(zip(sections[::2], sections[1::2], strict=True))
    entries = re.findall(r"^    (\w+): (.+(?:\n {5,}.+)*)", contents.get("Args", ""), flags=re.MULTILINE)
    return Docstring(
        description.partition("\n\n")[0].strip(),
        " ".join(description.split()),
        {name: " ".join(entry.split()) for name, entry in entries},
        " ".join(contents.get("Example", "").split()),
    )


def check_options(words: Sequence[str], known: Collection[str], command: str) -> None:
    """Raise on the first unknown option, and suggest a similar one.

    Args:
        words: Arguments of the command line. Options of run files have keys after a dot.
        known: Known options, such as ``["--config"]``.
        command: Command whose help lists them.

    Raises:
        UsageError: If an option is unknown.
    """
    for word in words:
        if word == "--":
            return
        option = re.match(r"--[^\s.=+]*", word)
        if option and option[0] not in known:
            raise UsageError(f"There is no option {option[0]!r}.{suggest(option[0], known)} See {command} --help.")


def _add_argument(parser: CommandParser, parameter: inspect.Parameter, hint: Any, help_: str) -> None:
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (kind for kind in get_args(hint) if kind is not NoneType)
    is_list = get_origin(hint) is Sequence
    kind = get_args(hint)[0] if is_list else hint
    is_required = parameter.default is inspect.Parameter.empty
    settings: dict[str, Any] = {}
    if kind is bool:
        settings["action"] = "store_true"
    elif get_origin(kind) is Literal:
        settings["choices"] = get_args(kind)
    else:
        # Shells do not expand ~ in --out=~/captions.
        settings |= {"type": expand_home if kind is Path else kind, "metavar": _METAVARS.get(kind, "PATH")}
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
        if is_required:
            settings["required"] = True
            help_ += " (required)"
        elif is_list:
            settings |= {"action": "append", "default": []}
            help_ += " (may be repeated)"
        else:
            settings["default"] = parameter.default
            help_ += f" (default: {parameter.default})" if parameter.default is not None and kind is not bool else ""
        parser.add_argument(f"--{parameter.name}", help=help_.replace("%", "%%"), **settings)
        return
    settings["metavar"] = parameter.name.upper()
    if is_list:
        settings["nargs"] = "+" if is_required else "*"
    parser.add_argument(parameter.name, help=help_.replace("%", "%%"), **settings)
