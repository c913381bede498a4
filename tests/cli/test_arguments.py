from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from synth2_lightning.cli.arguments import check_options, make_parser, read_docstring
from synth2_lightning.cli.errors import UsageError


def write(
    run: str,
    images: Sequence[str],
    *,
    out: Path,
    device: str | None = None,
    format: Literal["text", "csv"] | None = None,
    size: int = 3,
    threshold: float = 0.5,
    trust: Sequence[str] = (),
    fast: bool = False,
) -> None:
    """Write what is given.

    It takes 100% of it,
    whatever it is.

    Args:
        run: A run.
        images: Some images, or
            more of them.
        out: Where to.
        device: Which one.
        format: Of the file.
        size: Some number.
        threshold: At 50%.
        trust: Whom.
        fast: How.

    Example:
        synth2 write run a.png --out b
    """


def parse(*words: str) -> dict[str, Any]:
    return make_parser(write).parse_command(words)


def test_defaults_are_those_of_the_signature() -> None:
    given = parse("run", "a.png", "b.png", "--out", "file")
    assert given == {
        **{"run": "run", "images": ["a.png", "b.png"], "out": Path("file"), "device": None, "format": None},
        **{"size": 3, "threshold": 0.5, "trust": [], "fast": False},
    }


@pytest.mark.parametrize("name", ["123", "null", "[a]", "1e5", "{a: b}", "true", "a: b", "!x", "@file", "a=b", " "])
def test_texts_and_paths_stay_as_they_are_typed(name: str) -> None:
    given = parse(name, name, name, "--out", name, "--device", name, f"--trust={name}")
    assert (given["run"], given["images"], given["device"], given["trust"]) == (name, [name, name], name, [name])
    assert given["out"] == Path(name)


def test_home_folders_of_options_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse("run", "x", "--out=~/captions")["out"] == tmp_path / "captions"


def test_options_are_converted_and_repeated() -> None:
    given = parse(
        *("--trust", "a", "run", "x", "--trust=b", "--fast", "--size=7", "--threshold", "1e-1", "--out", "o"),
        *("--format", "csv"),
    )
    assert given["trust"] == ["a", "b"]
    assert (given["fast"], given["size"], given["threshold"], given["format"]) == (True, 7, 0.1, "csv")
    assert parse("run", "x", "--out", "o")["trust"] == []  # of this call alone


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["run"], "IMAGES"),
        (["run", "x"], "--out"),
        (["run", "x", "--out", "o", "--size", "1.5"], "--size.*'1.5'"),
        (["run", "x", "--out", "o", "--format", "json"], "--format.*'json'.*'csv'"),
        (["run", "x", "--out", "o", "--fast=yes"], "--fast"),
        (["--oot", "o"], "'--oot'.*'--out'"),
        (["run", "x", "--ou", "o"], "'--ou'.*'--out'"),  # no abbreviations
        (["run", "x", "--out", "o", "-q"], "-q"),
        (["run", "x", "--out", "o", "--config", "file"], "'--config'"),
        (["run", "x", "--out", "o", "--print_config"], "'--print_config'"),
    ],
)
def test_wrong_words_are_refused(words: list[str], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        parse(*words)


def test_what_follows_two_dashes_is_no_option() -> None:
    assert parse("--out", "o", "--", "run", "--x")["images"] == ["--x"]
    check_options(["--", "--x"], [], "synth2")


def test_the_docstring_is_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in (
        *("Write what is given. It takes 100% of it, whatever it is.", "RUN A run.", "Some images, or more of them."),
        *("--out PATH Where to. (required)", "(default: 3)", "At 50%. (default: 0.5)", "Whom. (may be repeated)"),
        "Example: synth2 write run a.png --out b",
    ):
        assert text in shown
    assert "None" not in shown
    assert read_docstring(write).summary == "Write what is given."


def test_a_default_of_zero_is_in_the_help() -> None:
    def sample(*, seed: int = 0) -> None:
        """Sample captions.

        Args:
            seed: Seed of the samples.
        """

    assert "Seed of the samples. (default: 0)" in make_parser(sample).format_help()
