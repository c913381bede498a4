"""Messages for people: text of files, models and servers is shown as it is, and never acts on the terminal.

Names and captions come from elsewhere. In them, escape codes would set the title of a terminal, hide lines or type
commands, and markup of rich would color or drop words. Everything that is printed goes through one of two places here:
:class:`MessageConsole`, or :func:`make_output_visible` for logs, warnings and tracebacks, which libraries print.
"""

import json
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

_INVISIBLE = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f"  # control characters of ASCII and Latin-1, but for tabulators and line ends
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # what changes the direction of writing, and other line ends
    "\ufff9-\ufffb\U000e0000-\U000e007f"  # annotations and tags, which are not shown
    "\ud800-\udfff]"  # halves of characters, as which Python has the bytes of names that are no UTF-8
)


def visible(text: str) -> str:
    r"""Return a text with its control characters written out, as Python writes them in a string.

    Args:
        text: Any text. Tabulators and line ends are kept.

    Example:
        >>> visible("x\x1b]0;title\x07.png")
        'x\\x1b]0;title\\x07.png'
    """
    return _INVISIBLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def visible_json(text: str) -> str:
    r"""Return JSON with the control characters in its strings as escapes of JSON, which are read back as they were.

    Example:
        >>> visible_json('"x\x9b2J"')
        '"x\\u009b2J"'
    """
    return _INVISIBLE.sub(lambda match: json.dumps(match[0])[1:-1], text)


class MessageConsole(Console):
    r"""A console of rich that prints texts as they are: no markup, no emoji codes, control characters written out.

    Args:
        stderr: Print to the standard error.
        settings: More of what :class:`rich.console.Console` takes.

    Example:
        >>> MessageConsole(width=40).print("[red]\x1b[2J[/red] :dog:")
        [red]\x1b[2J[/red] :dog:
    """

    def __init__(self, stderr: bool = False, **settings: Any) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Lay a text out; its control characters take the room of what is written for them."""
        return super().render_str(visible(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render anything; only rich itself moves the cursor."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def make_output_visible() -> None:
    """Write control characters out in what this process logs, warns of, and says of errors that nobody caught.

    By Python's own places for it: the factory of log records, ``warnings.showwarning`` and ``sys.excepthook``.

    Example:
        >>> make_output_visible()
    """
    logging.setLogRecordFactory(_VisibleRecord)
    warnings.showwarning = _show_warning
    sys.excepthook = _show_error


class _VisibleRecord(logging.LogRecord):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.exc_info, tuple) and self.exc_info[0] is not None:
            self.exc_text = visible("".join(traceback.format_exception(*self.exc_info)).rstrip("\n"))

    def getMessage(self) -> str:  # noqa: N802 - logging's name
        return visible(super().getMessage())


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    stream = sys.stderr if file is None else file
    if stream is not None:
        stream.write(visible(warnings.formatwarning(str(message), category, filename, lineno, line)))


def _show_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(visible("".join(traceback.format_exception(kind, error, trace))))
