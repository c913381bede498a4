"""The files that the parts of a model read: copied beside it, so that its folder is all that it needs."""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from synth2_lightning.files import expand_home, set_default_mode
from synth2_lightning.locations import resolve
from synth2_lightning.remote import is_remote

FILES = "files"
_HERE = "here://"
_EVERYWHERE = ("package://", "weights://")
_PICKLES = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}
_SAFE = {".safetensors", ".gguf"}


def copy_files(description: Any, locations: Collection[str], folder: Path, where: str = "") -> Any:
    """Copy what lies on this machine alone, and have the description name the copies.

    Names on the Hub, ``package://`` and ``weights://`` are the same everywhere: they stay. What was fetched from an
    address is copied. A copy keeps its own name, since parts are called after the files that they read.

    Args:
        description: Plain values, nested.
        locations: What was read when the parts were built, as it was written.
        folder: Of the export; copies go to ``files/ARGUMENT/``.
        where: Path of the description in the whole one.

    Returns:
        The description, with ``here://`` locations.

    Raises:
        ValueError: If a file could hold code.

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
    source = resolve(description, "file of the model").resolve()
    target = Path(FILES) / where / source.name
    _copy(source, folder / target)
    return f"{_HERE}{target.as_posix()}"


def find_files(description: Any, folder: Path) -> Any:
    """Turn ``here://`` locations of a description into paths.

    Args:
        description: Plain values, nested, as :func:`copy_files` gave them.
        folder: Of the export.

    Raises:
        ValueError: If one of them leads out of the folder, or to a file that could hold code, or there is an address.
            Paths that are no ``here://`` are refused where they are resolved, by
            :func:`~synth2_lightning.locations.limit_locations`.
        FileNotFoundError: If there is no such file.
    """
    if isinstance(description, Mapping):
        return {key: find_files(value, folder) for key, value in description.items()}
    if isinstance(description, list):
        return [find_files(value, folder) for value in description]
    if not isinstance(description, str):
        return description
    if _leads_out(description):
        raise ValueError(f"{description!r} leads out of {folder}; expected a file inside. It was not read.")
    if not is_remote(description) or description.startswith(_EVERYWHERE):
        return description
    if not description.startswith(_HERE):
        raise ValueError(
            f"The model in {folder} names {description!r}, and nothing is fetched because a model asks for it; "
            "expected files inside its folder. Fetch it yourself if you trust it, and name the copy. It was not read."
        )
    inner = Path(description.removeprefix(_HERE))
    path = folder / inner
    if not path.exists():
        raise FileNotFoundError(
            f"The model in {folder} needs {inner.as_posix()}, which is not there. Expected the whole folder that "
            "`synth2 export` wrote: copy or download it again."
        )
    if pickles := _list_pickles(path):
        raise ValueError(
            f"{pickles[0]} may hold code, as pickles do; expected safetensors or plain files. It was not read."
        )
    return str(path)


def _leads_out(text: str) -> bool:
    # Some are joined to a folder, such as the name of a GGUF file: an absolute path would take the folder's place.
    path = PurePosixPath(text.removeprefix(_HERE))
    return ".." in path.parts or (path.is_absolute() and (text.startswith(_HERE) or _exists(str(path))))


def _exists(text: str) -> bool:
    try:
        return expand_home(text).exists()
    except (OSError, ValueError):  # a long text is no path, nor is one with a zero byte
        return False


def _is_local(text: str, locations: Collection[str]) -> bool:
    # A bare word may be a name or a prompt, and a folder by chance: it is a location if some part read it as one.
    if is_remote(text):
        return text in locations and not text.startswith(_EVERYWHERE)
    if not text or "://" in text or not (text in locations or "/" in text):
        return False
    return _exists(text)


def _copy(source: Path, target: Path) -> None:
    pickles = _list_pickles(source)
    is_left_out = {path for path in pickles if any(other.suffix in _SAFE for other in path.parent.iterdir())}
    if source in pickles or set(pickles) - is_left_out:
        raise ValueError(
            f"The model reads {next(path for path in pickles)}, a pickle, which may hold code; a model that is shared "
            "must not. Save its tensors under the same name as .safetensors (safetensors.torch.save_file), train with "
            "that, and export again."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=_leave_out_pickles, copy_function=shutil.copyfile)
        for folder in (target, *(path for path in target.rglob("*") if path.is_dir())):
            set_default_mode(folder)  # which copytree() copies
    else:
        shutil.copyfile(source, target)


def _leave_out_pickles(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if Path(name).suffix.lower() in _PICKLES}


def _list_pickles(path: Path) -> list[Path]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [file for file in files if file.suffix.lower() in _PICKLES]
