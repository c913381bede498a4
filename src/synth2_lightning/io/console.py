"""Terminal output with control characters escaped.

Names and captions are untrusted. Escape sequences in them could change the terminal's title, hide lines or enter
commands, and rich markup could color or drop words. :class:`MessageConsole` escapes what this package prints,
:func:`make_output_visible` logs, warnings and tracebacks of all libraries.
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

import rich
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

_INVISIBLE = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f"  # control characters of ASCII and Latin-1, except tab and line feed
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # bidirectional controls, line and paragraph separators
    "\ufff9-\ufffb\U000e0000-\U000e007f"  # annotations and tags, which are invisible
    "\ud800-\udfff]"  # surrogates: Python's form of file names that are not UTF-8
)


def visible(text: str) -> str:
    r"""Return a text with control characters, except tabs and line feeds, as Python escapes.

    Example:
        >>> visible("x\x1b]0;title\x07.png")
        'x\\x1b]0;title\\x07.png'
    """
    return _INVISIBLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def visible_json(text: str) -> str:
    """Return JSON with the control characters in its strings as JSON escapes, which parse to the same values."""
    return _INVISIBLE.sub(lambda match: json.dumps(match[0])[1:-1], text)


class MessageConsole(Console):
    r"""A rich console that prints text literally: no markup, no emoji codes, control characters escaped.

    Args:
        stderr: Print to standard error.
        settings: Other arguments of :class:`rich.console.Console`.

    Example:
        >>> MessageConsole(width=40).print("[red]\x1b[2J[/red] :dog:")
        [red]\x1b[2J[/red] :dog:
    """

    def __init__(self, stderr: bool = False, **settings: Any) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return the rich text, laid out with escaped control characters."""
        return super().render_str(visible(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield segments with escaped text; only control segments of rich move the cursor."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))


def shows_progress_bars() -> bool:
    """Return whether standard output is a terminal or a notebook, where lines can be replaced."""
    console = rich.get_console()
    return console.is_terminal or console.is_jupyter


def make_output_visible() -> None:
    """Escape control characters in logs, warnings and uncaught tracebacks of this process.

    Sets the factory of log records, ``warnings.showwarning`` and ``sys.excepthook``.
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
