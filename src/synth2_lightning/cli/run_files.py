"""Lookup of included run files by name, and of the packages that arguments name."""

import argparse
import re
import sys
from collections.abc import Collection, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path

from synth2_lightning.cli.errors import UsageError, suggest
from synth2_lightning.io.paths import check_not_special


def run_file_folder() -> Path:
    """Return the folder of the included run files: in the wheel, or in the root of a checkout."""
    inside = Path(__file__).parents[1] / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "configs"


def find_run_files(words: Sequence[str], keys: Collection[str] = ()) -> list[str]:
    """Replace names of included run files, such as ``--config mixed.yaml``, by their paths; existing files come first.

    Args:
        words: Arguments of the command line.
        keys: Top-level keys that a run file may have; any if empty.

    Raises:
        FileNotFoundError: If a run file does not exist.
        UsageError: If a run file has another key.
        ValueError: If a run file exceeds the limits of aliases or nesting, or is not a regular file.

    Example:
        >>> find_run_files(["fit", "--config=mixed.yaml"]) == ["fit", f"--config={run_file_folder() / 'mixed.yaml'}"]
        True
    """
    found = list(words)
    for position, word in enumerate(words):
        inline = word.startswith("--config=")
        if not inline and (word not in ("--config", "-c") or position + 1 == len(words)):
            continue
        path = str(_find_run_file(word.removeprefix("--config=") if inline else words[position + 1], keys))
        found[position if inline else position + 1] = f"--config={path}" if inline else path
    return found


def split_trust(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments without ``--trust PACKAGE``, and the packages; a run file cannot contain it.

    Example:
        >>> split_trust(["fit", "--trust", "my_heads", "--config", "mixed.yaml"])
        (['fit', '--config', 'mixed.yaml'], ['my_heads'])
    """
    parser = argparse.ArgumentParser(prog="synth2", add_help=False, allow_abbrev=False)
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE")
    args, others = parser.parse_known_args(words)
    return others, args.trust


def typed_names(words: Sequence[str]) -> list[str]:
    """Return the import paths among the arguments; unlike those in run files, they are trusted.

    Returns:
        Complete paths in the standard library; otherwise names of top-level packages.

    Example:
        >>> typed_names(["fit", "--model=my_heads.Captioner", "--config", "mixed.yaml"])
        ['my_heads']
    """
    pairs = [word.partition("=")[::2] if word.startswith("-") else ("", word) for word in words]
    pairs += [(option, value) for option, value in pairwise(words) if option.startswith("-")]
    are_files = {value for option, value in pairs if option in ("--config", "-c", "--ckpt_path")}
    paths = {value for _, value in pairs if re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", value)} - are_files
    return [path if (top := path.partition(".")[0]) in sys.stdlib_module_names else top for path in sorted(paths)]


def _find_run_file(name: str, keys: Collection[str]) -> Path:
    path = Path(name)
    if path.is_file():
        _check_run_file(path, keys)
        return path
    check_not_special(path)
    folder = run_file_folder()
    included = folder / name.removeprefix("configs/")
    if not included.is_file():
        known = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.yaml"))]
        # Files in folders are parts, overlays and experiments.
        first = [file for file in known if "/" not in file]
        first.sort(key=lambda file: SequenceMatcher(None, name, file).ratio(), reverse=True)
        raise FileNotFoundError(
            f"There is no run file {name!r}, neither in {Path.cwd()} nor among the included ones."
            f"{suggest(name, known)} Expected a path, or one of: {', '.join(first)}."
        )
    return included


def _check_run_file(path: Path, keys: Collection[str]) -> None:
    """Raise on a run file with too many aliases or levels, or another key; jsonargparse refuses what is not YAML.

    jsonargparse ignores unknown keys without settings.
    """
    import yaml

    from synth2_lightning.io.yaml_text import check_yaml, parse_yaml

    try:
        text = path.read_text("utf-8")
        check_yaml(text)
        content = parse_yaml(text)
    except (yaml.YAMLError, UnicodeDecodeError):
        return
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be read as a run file: {error}. Expected a file as `synth2 fit --print_config` prints it. "
            "Replace the aliases by their values, or use another file."
        ) from error
    unknown = [key for key in content if str(key) not in keys] if isinstance(content, dict) and keys else []
    if unknown:
        name = str(unknown[0])
        raise UsageError(
            f"There is no setting {name!r}.{suggest(name, keys)} {path} has it at its top level; expected some of "
            f"{', '.join(sorted(keys))}."
        )
