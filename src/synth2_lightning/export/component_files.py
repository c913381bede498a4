"""Copies of the files that a model's components read, so that its exported folder needs no local paths."""

import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from synth2_lightning.io.atomic import set_default_mode
from synth2_lightning.io.locations import resolve
from synth2_lightning.io.paths import expand_home
from synth2_lightning.io.remote import is_remote

FILES = "files"
_HERE = "here://"
_EVERYWHERE = ("package://", "weights://")
_PICKLES = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}
_SAFE = {".safetensors", ".gguf"}


def copy_files(description: object, locations: Collection[str], folder: Path, where: str = "") -> Any:
    """Copy local and downloaded files into an export, and return the description with the copies' locations.

    Names on the Hub, ``package://`` and ``weights://`` are valid on every machine and stay. A copy keeps its file
    name, because components derive their names from it.

    Args:
        description: Nested plain values.
        locations: Locations that were read while the components were built, as written in the description.
        folder: Folder of the export; copies go to ``files/ARGUMENT/``.
        where: Path of this description in the complete one.

    Returns:
        The description, with ``here://`` locations.

    Raises:
        ValueError: If a file may hold code.

    Example:
        >>> copy_files({"tokenizer": "package://synth2_lightning/scenes/vocabulary"}, [], Path("export"))
        {'tokenizer': 'package://synth2_lightning/scenes/vocabulary'}
    """
    if isinstance(description, Mapping):
        names = {key: where if key == "init_args" else f"{where}.{key}".strip(".") for key in description}
        return {key: copy_files(value, locations, folder, names[key]) for key, value in description.items()}
    if isinstance(description, list | tuple):
        return [copy_files(value, locations, folder, f"{where}.{row}") for row, value in enumerate(description)]
    if not isinstance(description, str) or not _is_local(description, locations):
        return description
    # Not resolve() of the path: it would follow the links of the Hub's cache, and lose the file's name.
    source = Path(os.path.abspath(resolve(description, "file of the model")))  # noqa: PTH100
    target = Path(FILES) / where / source.name
    _copy(source, folder / target)
    return f"{_HERE}{target.as_posix()}"


def find_files(description: object, folder: Path) -> Any:
    """Resolve ``here://`` locations of a description to paths.

    Raises:
        ValueError: If a location is outside of the folder, is a URL, or is a file that may hold code. Other paths are
            refused when they are resolved, by :func:`~synth2_lightning.io.locations.limit_locations`.
        FileNotFoundError: If a file is missing.
    """
    if isinstance(description, Mapping):
        return {key: find_files(value, folder) for key, value in description.items()}
    if isinstance(description, list):
        return [find_files(value, folder) for value in description]
    if not isinstance(description, str):
        return description
    if _leads_out(description):
        raise ValueError(f"{description!r} leads out of {folder}; expected a file inside it. It was not read.")
    if not is_remote(description) or description.startswith(_EVERYWHERE):
        return description
    if not description.startswith(_HERE):
        raise ValueError(
            f"The model in {folder} names {description!r}; expected files inside its folder. It was not downloaded. "
            "If you trust it, download it yourself and give the path of the copy."
        )
    inner = Path(description.removeprefix(_HERE))
    path = folder / inner
    if not path.exists():
        raise FileNotFoundError(
            f"The model in {folder} needs {inner.as_posix()}, which is missing. Expected the complete folder that "
            "`synth2 export` wrote: copy or download it again."
        )
    if pickles := _list_pickles(path):
        raise ValueError(
            f"{pickles[0]} is a pickle, which may hold code; expected safetensors or plain files. It was not read."
        )
    return str(path)


def _leads_out(text: str) -> bool:
    # Some are joined to a folder, such as the name of a GGUF file: an absolute path would replace the folder.
    path = PurePosixPath(text.removeprefix(_HERE))
    return ".." in path.parts or (path.is_absolute() and (text.startswith(_HERE) or _exists(str(path))))


def _exists(text: str) -> bool:
    try:
        return expand_home(text).exists()
    except (OSError, ValueError):  # too long, or has a null byte
        return False


def _is_local(text: str, locations: Collection[str]) -> bool:
    # A word without a slash may be a name or prompt that equals a folder's name: it counts only if a component read it.
    if is_remote(text):
        return text in locations and not text.startswith(_EVERYWHERE)
    if not text or "://" in text or not (text in locations or "/" in text):
        return False
    return _exists(text)


def _copy(source: Path, target: Path) -> None:
    pickles = _list_pickles(source)
    skipped = {path for path in pickles if any(sibling.suffix in _SAFE for sibling in path.parent.iterdir())}
    if source in pickles or set(pickles) - skipped:
        raise ValueError(
            f"The model reads {pickles[0]}, a pickle, which may hold code; expected safetensors. Save its tensors "
            "under the same name as .safetensors (safetensors.torch.save_file), train with that file, and export again."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=_pickle_names, copy_function=shutil.copyfile)
        for folder in (target, *(path for path in target.rglob("*") if path.is_dir())):
            set_default_mode(folder)  # copytree() copies the source's mode
    else:
        shutil.copyfile(source, target)


def _pickle_names(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if Path(name).suffix.lower() in _PICKLES}


def _list_pickles(path: Path) -> list[Path]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file for file in files if file.suffix.lower() in _PICKLES]
