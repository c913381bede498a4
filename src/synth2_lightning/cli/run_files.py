"""Shipped run files by name, and what a run file may name."""

import argparse
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path

from synth2_lightning.io.paths import refuse_special


def config_folder() -> Path:
    """Return the folder of the shipped run files: in the wheel, or at the top of a checkout.

    Example:
        >>> (config_folder() / "mixed.yaml").is_file()
        True
    """
    inside = Path(__file__).parents[1] / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "configs"


def find_configs(words: Sequence[str]) -> list[str]:
    """Let ``--config mixed.yaml`` name a shipped run file from any folder; a file in the current folder comes first.

    Args:
        words: Of the command line.

    Returns:
        The words with the paths of shipped run files in place of their names.

    Raises:
        FileNotFoundError: If there is no such run file.
        ValueError: If a run file multiplies or nests beyond its limits, or is no regular file.

    Example:
        >>> find_configs(["fit", "--config=mixed.yaml"]) == ["fit", f"--config={config_folder() / 'mixed.yaml'}"]
        True
    """
    found = list(words)
    for position, word in enumerate(words):
        inline = word.startswith("--config=")
        if not inline and (word not in ("--config", "-c") or position + 1 == len(words)):
            continue
        path = str(_find_config(word.removeprefix("--config=") if inline else words[position + 1]))
        found[position if inline else position + 1] = f"--config={path}" if inline else path
    return found


def split_trust(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split ``--trust PACKAGE`` from the words: it is no argument of the run files' parser, so no run file can hold it.

    Args:
        words: Of the command line.

    Returns:
        The other words, and the packages.

    Example:
        >>> split_trust(["fit", "--trust", "my_heads", "--config", "mixed.yaml"])
        (['fit', '--config', 'mixed.yaml'], ['my_heads'])
    """
    parser = argparse.ArgumentParser(prog="synth2", add_help=False, allow_abbrev=False)
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE")
    given, others = parser.parse_known_args(words)
    return others, given.trust


def typed_names(words: Sequence[str]) -> list[str]:
    """List the import paths that the user typed as whole values: what is typed is trusted, unlike what a file holds.

    Args:
        words: Of the command line.

    Returns:
        Of the standard library the whole path, else the name of the top-level package.

    Example:
        >>> typed_names(["fit", "--model=my_heads.Captioner", "--config", "mixed.yaml"])
        ['my_heads']
    """
    pairs = [word.partition("=")[::2] if word.startswith("-") else ("", word) for word in words]
    pairs += [(option, value) for option, value in pairwise(words) if option.startswith("-")]
    are_files = {value for option, value in pairs if option in ("--config", "-c", "--ckpt_path")}
    paths = {value for _, value in pairs if re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", value)} - are_files
    return [path if (top := path.partition(".")[0]) in sys.stdlib_module_names else top for path in sorted(paths)]


def explain_denied_import(message: str) -> str:
    """Explain why the parser did not import what a run file names; other messages are returned as they are.

    Example:
        >>> "--trust my_heads" in explain_denied_import("Importing 'my_heads.Captioner' is not allowed")
        True
    """
    denied = re.search(
        r"(?:Importing|A run file names) '((\w+)[\w.]*)'(?: is not allowed|, and a run file may)", message
    )
    if denied is None:
        return message
    return (
        f"A run file names {denied[1]!r}, and a run file may name classes of synth2_lightning, torch, lightning and "
        "transformers only: importing another package runs its code. Nothing was imported. If you know that code and "
        f"trust it, allow it: --trust {denied[2]}"
    )


def _find_config(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        _check_run_file(path)
        return path
    refuse_special(path)
    folder = config_folder()
    shipped = folder / name.removeprefix("configs/")
    if not shipped.is_file():
        known = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.yaml"))
        close = get_close_matches(name, known, n=1)
        raise FileNotFoundError(
            f"There is no run file {name!r}, neither here ({Path.cwd()}) nor among those that ship."
            f"{f' Did you mean {close[0]!r}?' if close else ''} Expected a path, or one of: {', '.join(known)}."
        )
    return shipped


def _check_run_file(path: Path) -> None:
    """Refuse a run file that multiplies or nests; files that are no YAML are refused by jsonargparse."""
    import yaml

    from synth2_lightning.io.yaml_text import check_yaml

    try:
        check_yaml(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be read as a run file: {error}. Expected one such as `synth2 fit --print_config` prints; "
            "write out what the aliases stand for, or take the file from elsewhere."
        ) from error
