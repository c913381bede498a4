"""Where files lie: a path, ``package://`` inside a package, ``weights://`` or any address for what is fetched."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from synth2_lightning.files import expand_home, refuse_special, whole_folder
from synth2_lightning.jsontext import parse_json
from synth2_lightning.remote import fetch_remote, is_remote
from synth2_lightning.weights import fetch

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


@contextmanager
def note_locations() -> Iterator[set[str]]:
    """Note every location that is resolved while the context lasts, as it was written: what is read, and no more.

    Names on the Hub are noted with ``hub://`` before them, as nobody writes them.

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
    """Refuse what a model from elsewhere must not name, while the context lasts in which the model is built.

    It may read the files in its own folder, what ships inside a package, and the weights of
    :mod:`synth2_lightning.weights`, which are compared with a checksum.

    Args:
        folder: Of the model.
        from_hub: Names on the Hub that the user allows to be fetched for it.

    Example:
        >>> with limit_locations(Path("captioner")):
        ...     locate_model("somebody/else", "tokenizer")
        Traceback (most recent call last):
        ValueError: The model in captioner names 'somebody/else', which is on the Hub and not in its folder...
    """
    token = _limits.set(_Limits(folder, [_absolute(folder)], from_hub))
    try:
        yield
    finally:
        _limits.reset(token)


@contextmanager
def hub_from_cache(from_hub: Collection[str] = ()) -> Iterator[None]:
    """Take models on the Hub from this machine's cache alone, while the context lasts: a checkpoint names them.

    A run that was trained here has them there. What is not there is not fetched because a checkpoint asks for it.

    Args:
        from_hub: Names on the Hub that the user allows to be fetched, besides those of a context around this one.

    Example:
        >>> with hub_from_cache():
        ...     locate_model("somebody/else", "tokenizer")
        Traceback (most recent call last):
        ValueError: A checkpoint names 'somebody/else', which is on the Hub and not in this machine's cache...
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
            f"A checkpoint names {name!r}, which is on the Hub and not in this machine's cache; nothing is fetched "
            f"because a checkpoint asks for it. If you know that model and trust it, fetch it by `hf download {name}`, "
            f"or allow it: load(..., from_hub=[{name!r}]), or --from-hub {name}."
        ) from error


def check_hub_name(name: str) -> None:
    """Refuse to fetch from the Hub where a model from elsewhere names it; see :func:`limit_locations`.

    Raises:
        ValueError: If the user did not allow it.

    Example:
        >>> check_hub_name("amused/amused-256")
    """
    if (noted := _notes.get()) is not None:
        noted.add(f"{HUB_SCHEME}{name}")
    if (limits := _limits.get()) is not None and name not in limits.from_hub:
        raise ValueError(
            f"The model in {limits.folder} names {name!r}, which is on the Hub and not in its folder; nothing is "
            "fetched because a model asks for it. Expected files inside its folder. If you know that model and trust "
            f"it, say so: load(..., from_hub=[{name!r}]), or --from-hub {name}."
        )


def resolve(location: str | Path, what: str) -> Path:
    """Turn a location into a path that exists.

    Args:
        location: A path (``~`` allowed), ``package://PACKAGE/PATH`` for a file inside an installed package,
            ``weights://NAME/PATH`` for a file of :mod:`synth2_lightning.weights`, fetched on first use, or an address
            such as ``s3://BUCKET/PATH``, fetched by :mod:`synth2_lightning.remote`.
        what: What is looked for, for the message.

    Raises:
        FileNotFoundError: If nothing lies there.
        OSError: If it cannot be fetched, or is a pipe, a socket or a device.
        ValueError: If there are no weights of that name, no such protocol, or :func:`limit_locations` forbids it.

    Example:
        >>> resolve("package://synth2_lightning/py.typed", "marker").name
        'py.typed'
    """
    text = str(location)
    if (noted := _notes.get()) is not None:
        noted.add(text)
    _check_limits(text)
    if text.startswith(PACKAGE_SCHEME):
        package, _, inner = text.removeprefix(PACKAGE_SCHEME).partition("/")
        path = _find_package(package, text) / inner
    elif text.startswith(_WEIGHTS):
        name, _, inner = text.removeprefix(_WEIGHTS).partition("/")
        path = fetch(name) / inner
    elif is_remote(text):
        path = fetch_remote(text, what)
    else:
        path = expand_home(text)
    if not path.exists():
        raise FileNotFoundError(
            f"The {what} is not at {str(location)!r} (looked at {path.absolute()}). Expected a path that exists, "
            "relative to the folder where the command was started, package://PACKAGE/PATH for what ships inside a "
            "package, weights://NAME/PATH for what `synth2 weights` fetches, or an address such as s3://BUCKET/PATH."
        )
    path = whole_folder(refuse_special(path))
    if (limits := _limits.get()) is not None:
        limits.roots.append(_absolute(path))  # the files of a folder are resolved one by one
    return path


def _find_package(package: str, location: str) -> Path:
    """Find the folder of a package without importing it: a file that only names it must not run its code."""
    top, *inner = package.split(".")
    spec = find_spec(top) if top else None
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f"{location!r} names the package {package!r}, which is not installed here; expected "
            "package://PACKAGE/PATH with the name of an installed package."
        )
    return Path(spec.submodule_search_locations[0], *inner)


def _check_limits(location: str) -> None:
    limits = _limits.get()
    if limits is None or location.startswith((PACKAGE_SCHEME, _WEIGHTS)):
        return
    path = None if is_remote(location) else _absolute(expand_home(location))
    if path is None or not any(path.is_relative_to(root) for root in limits.roots):
        raise ValueError(
            f"The model in {limits.folder} names {location!r}, which is not in its folder; expected files inside it, "
            "package:// or weights://. It was not read. Copy it there if you trust it, and name the copy."
        )


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow the links of which the Hub's cache is made


def find_checkpoint(location: str | Path) -> Path:
    """Find the checkpoint that is meant: the file itself, or the one of a run's folder with the best score.

    Where no score was recorded, it is the one with the most steps.

    Args:
        location: A checkpoint, or a folder with checkpoints in it, or in its folder ``checkpoints``.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If the one that may be the best is damaged, or all are.

    Example:
        >>> import torch
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for step in (900, 1000):
        ...         torch.save({"global_step": step}, f"{folder}/step={step}.ckpt")
        ...     find_checkpoint(folder).name
        'step=1000.ckpt'
    """
    path = resolve(location, "run or checkpoint")
    if path.is_file():
        return path
    from synth2_lightning.weight_files import find_best_checkpoint, find_newest_checkpoint  # torch takes its time

    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if found := find_best_checkpoint(folder) or find_newest_checkpoint(folder):
        return found
    raise FileNotFoundError(
        f"There is no checkpoint in {folder}; expected a checkpoint file, or the folder of a run with "
        "checkpoints/best-….ckpt or checkpoints/last.ckpt, such as `synth2 fit` leaves it (runs/version_0)."
    )


def locate_model(model: str, what: str) -> str:
    """Turn what a run file says of a model into what ``from_pretrained`` takes: a path that exists, or a Hub id.

    Hub ids are ``name`` or ``owner/name`` and never begin like a path; what lies here wins over the Hub.

    Args:
        model: A location as :func:`resolve` takes it; anything else is an id on the Hugging Face Hub.
        what: What is looked for, for the message.

    Raises:
        FileNotFoundError: If the model is said to lie here, and nothing lies there.
        OSError: If weights cannot be fetched.
        ValueError: If there are no weights of that name, a description of the model is no JSON, or
            :func:`limit_locations` forbids it.

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
    """Whether a model of :func:`locate_model` lies on this machine, and nothing is to be fetched with it.

    Libraries fetch what the files of a folder name, such as the base model of an adapter, unless told not to.

    Example:
        >>> is_here("amused/amused-256")
        False
    """
    return Path(model).exists()


def _check_model(path: Path) -> Path:
    """Refuse a model's folder whose descriptions nest so deep that its library would run out of stack, or never end."""
    for file in (file for name in _DESCRIPTIONS for file in (path / name, *path.glob(f"*/{name}"))):
        if refuse_special(file).is_file():
            try:
                parse_json(file.read_bytes())
            except ValueError as error:
                raise ValueError(
                    f"{file} is no valid JSON ({error}); expected what the makers of the model wrote. Copy it again."
                ) from error
    return path
