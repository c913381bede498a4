"""Where files lie: a path, ``package://`` inside a package, ``weights://`` or any address for what is fetched."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.resources import files
from pathlib import Path

from synth2_lightning.remote import fetch_remote, is_remote
from synth2_lightning.weights import fetch

PACKAGE_SCHEME = "package://"
_WEIGHTS = "weights://"
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
        OSError: If it cannot be fetched.
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
    return path


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
        ValueError: If there are no weights of that name.

    Example:
        >>> locate_model("amused/amused-256", "generator")
        'amused/amused-256'
    """
    is_local = "://" in model or model.startswith((".", "/", "~")) or model.count("/") > 1 or Path(model).exists()
    return str(resolve(model, what)) if is_local else model
