"""Commands that write what other commands read, for messages about missing files."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from synth2_lightning.cli.run_files import run_file_folder

_MAX_FILES = 500
_PARTS = ("seed_everything:", "trainer:", "model:", "data:")
"""Top-level keys of a complete run file; overlays have some of them."""


def find_maker(location: str, words: Sequence[str]) -> str:
    """Return a sentence with the command that writes a location; empty if it is unknown.

    The command is that of a run file which writes there: of the included ones, and of those in the folders of the run
    files of the command line, which come first.

    Args:
        location: Location that is missing, as a run file has it.
        words: Arguments of the command line.

    Example:
        >>> find_maker("runs/flickr8k/codebook", [])
        'It is written by `synth2 fit --config experiments/flickr8k/codebook.yaml`.'
    """
    folder = Path(location).parent
    exports = [location] if folder.is_dir() else [location, str(folder)]  # an existing export lacks no file
    pattern = re.compile(f"{_setting('export_to', exports)}|{_setting('folder', [location, str(folder)])}")
    for path in _list_run_files(words):
        text = path.read_text("utf-8", errors="replace")
        if found := pattern.search(text):
            return f"It is written by {_name_command(path, text, found[0].startswith('export_to'))}."
    if Path(location).name == "vocabulary":
        return f"It is written by `synth2 vocabulary CAPTIONS --out {location}`."
    return ""


def _setting(name: str, places: Sequence[str]) -> str:
    values = "|".join(re.escape(place) for place in places if place != ".")
    return rf"\b{name}: *['\"]?(?:{values})['\"]? *(?:[,}}#\n]|$)"


def _list_run_files(words: Sequence[str]) -> Iterator[Path]:
    named = [Path(word.removeprefix("--config=")) for word in words if word.endswith((".yaml", ".yml"))]
    included = run_file_folder()
    own = sorted({path.parent for path in named if path.is_file() and not path.is_relative_to(included)})
    files = [path for folder in own for path in sorted(folder.glob("*.yaml"))[:_MAX_FILES]]
    yield from files
    yield from sorted(included.rglob("*.yaml"))


def _name_command(path: Path, text: str, is_fit: bool) -> str:
    folder = run_file_folder()
    name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
    command = f"synth2 {'fit' if is_fit else 'predict'}"
    if all(re.search(rf"^{part}", text, re.MULTILINE) for part in _PARTS):
        return f"`{command} --config {name}`"
    return f"`{command}` with {name}, as its first lines describe"
