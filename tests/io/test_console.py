import logging
import sys
import warnings
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from synth2_lightning.io.console import MessageConsole, make_output_visible, visible, visible_json
from synth2_lightning.io.json_text import parse_json

HOSTILE = {
    "title of the terminal": "\x1b]0;owned\x07",
    "clear the screen": "\x1b[2J",
    "move up and hide": "\x1b[1A\x1b[2K\x1b[8m",
    "one byte for ESC and [": "\x9b2J",
    "one byte for ESC and ]": "\x9d0;owned\x9c",
    "go back and write over": "real\rfake\b\b",
    "delete": "\x7f",
    "a link of the terminal": "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "right to left": "\u202egnp.exe",
    "isolated direction": "\u2066hidden\u2069",
    "line separator": "one\u2028error: two",
    "tags that are not shown": "a\U000e0041",
    "half a character": "\udc80",
}
MARKUP = ["[red]a fox[/red]", "[/]", "[link=http://evil.example]a fox[/link]", "[bold", ":dog:", "\\[red]"]


@pytest.fixture(params=HOSTILE.values(), ids=list(HOSTILE))
def hostile(request: pytest.FixtureRequest) -> str:
    text: str = request.param
    return text


def has_none(text: str) -> bool:
    return visible(text) == text


@pytest.mark.parametrize("is_terminal", [False, True])
def test_names_in_messages_tables_and_bars_do_not_act_on_the_terminal(hostile: str, is_terminal: bool) -> None:
    out = StringIO()
    console = MessageConsole(file=out, force_terminal=is_terminal, width=200, color_system=None)
    console.print(f"one {hostile}", soft_wrap=True)
    console.print(Text(f"two {hostile}"), soft_wrap=True)
    table = Table("name", hostile)
    table.add_row(hostile, Text(hostile))
    console.print(table)
    assert has_none(out.getvalue())
    with Progress(TextColumn("{task.description}", markup=False), console=console) as progress:
        progress.add_task(f"embedding {hostile}")
    assert hostile not in out.getvalue()


@pytest.mark.parametrize("text", MARKUP)
def test_markup_is_printed_as_it_is(text: str) -> None:
    out = StringIO()
    console = MessageConsole(file=out, width=200)
    console.print(text)
    console.print(Table(text, box=None))
    assert [line.strip() for line in out.getvalue().splitlines()] == [text, text]


def test_logs_warnings_and_tracebacks_do_not_act_on_the_terminal(hostile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    err, log = StringIO(), StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    before = logging.getLogRecordFactory()
    make_output_visible()
    logger, handler = logging.getLogger("lightning.pytorch.test"), logging.StreamHandler(log)
    logger.addHandler(handler)
    try:
        logger.warning("Source %r leaves out %s", hostile, hostile)
        logger.warning("a damaged %s")  # without an argument
        try:
            raise ValueError(hostile)
        except ValueError as error:
            logger.exception("failed")
            sys.excepthook(ValueError, error, error.__traceback__)
        warnings.showwarning(UserWarning(hostile), UserWarning, f"{hostile}.py", 1)
    finally:
        logger.removeHandler(handler)
        logging.setLogRecordFactory(before)
    assert "UserWarning" in err.getvalue()
    assert "ValueError" in err.getvalue()
    assert "Traceback" in log.getvalue()
    assert has_none(err.getvalue())
    assert has_none(log.getvalue())


@given(st.text())
def test_json_is_read_back_as_it_was(text: str) -> None:
    import json

    written = visible_json(json.dumps({"caption": text}, ensure_ascii=False))
    assert has_none(written)
    assert parse_json(written) == {"caption": text}


def test_words_of_every_script_stay() -> None:
    text = "naïve 犬 🦊 👩‍👩‍👧 می‌خواهم Füchsin\tx\n"
    assert visible(text) == text
