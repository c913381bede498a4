"""Where files lie: a path, ``package://`` inside a package, ``weights://`` or any address for what is fetched."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.resources import files
from pathlib import Path

from synth2_lightning.files import refuse_special
from synth2_lightning.jsontext import parse_json
from synth2_lightning.remote import fetch_remote, is_remote
from synth2_lightning.weights import fetch

PACKAGE_SCHEME = "package://"
_WEIGHTS = "weights://"
_DESCRIPTIONS = (
    *("config.json", "generation_config.json", "model.safetensors.index.json", "model_index.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("preprocessor_config.json", "scheduler_config.json", "adapter_config.json"),
)
_notes: ContextVar[set[str] | None] = ContextVar("_notes", default=None)


@contextmanager
def note_locations() -> Iterator[set[str]]:
    """Note every location that is resolved while the context lasts, as it was written: what is read, and no more.

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
        ValueError: If there are no weights of that name, or no such protocol.

    Example:
        >>> resolve("package://synth2_lightning/py.typed", "marker").name
        'py.typed'
    """
    text = str(location)
    if (noted := _notes.get()) is not None:
        noted.add(text)
    if text.startswith(PACKAGE_SCHEME):
        package, _, inner = text.removeprefix(PACKAGE_SCHEME).partition("/")
        path = Path(str(files(package))) / inner
    elif text.startswith(_WEIGHTS):
        name, _, inner = text.removeprefix(_WEIGHTS).partition("/")
        path = fetch(name) / inner
    elif is_remote(text):
        path = fetch_remote(text, what)
    else:
        path = Path(text).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"The {what} is not at {str(location)!r} (looked at {path.absolute()}). Expected a path that exists, "
            "relative to the folder where the command was started, package://PACKAGE/PATH for what ships inside a "
            "package, weights://NAME/PATH for what `synth2 weights` fetches, or an address such as s3://BUCKET/PATH."
        )
    return refuse_special(path)


def find_checkpoint(location: str | Path) -> Path:
    """Find the checkpoint that is meant: the file itself, or the best one of a run's folder, or else its last.

    Args:
        location: A checkpoint, or a folder with checkpoints in it, or in its folder ``checkpoints``.

    Raises:
        FileNotFoundError: If there is none.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for name in ("last.ckpt", "step=800.ckpt", "best-step=700-cider=0.400.ckpt"):
        ...         _ = (Path(folder) / name).write_bytes(b"")
        ...     find_checkpoint(folder).name
        'best-step=700-cider=0.400.ckpt'
    """
    path = resolve(location, "run or checkpoint")
    if path.is_file():
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    # A second run in the same folder leaves the best one of the first beside its own.
    by_age = sorted(folder.glob("*.ckpt"), key=lambda file: (file.stat().st_mtime, file.name))
    best = [file for file in by_age if file.name.startswith("best")]
    last = [file for file in by_age if file.name.startswith("last")]
    if found := best or last or by_age:
        return found[-1]
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
        ValueError: If there are no weights of that name, or a description of the model is no JSON.

    Example:
        >>> locate_model("amused/amused-256", "generator")
        'amused/amused-256'
    """
    is_local = "://" in model or model.startswith((".", "/", "~")) or model.count("/") > 1 or Path(model).exists()
    return str(_check_model(resolve(model, what))) if is_local else model


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
