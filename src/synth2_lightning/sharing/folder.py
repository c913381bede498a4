"""The folder of an exported captioner, which appears whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synth2_lightning.files import refuse_special
from synth2_lightning.jsontext import parse_json
from synth2_lightning.sharing.files import FILES

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FORMAT = "synth2-lightning captioner"


def is_exported(folder: str | Path) -> bool:
    """Whether a folder holds a captioner that ``synth2 export`` wrote.

    Example:
        >>> is_exported("runs/version_0")
        False
    """
    try:
        return bool(parse_json(refuse_special(Path(folder) / CONFIG).read_bytes())["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def refuse_taken(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier export.

    Raises:
        FileExistsError: If it does.
    """
    if folder.is_dir():
        others = sorted(path.name for path in folder.iterdir())
        if is_exported(folder):
            others = sorted(set(others) - {CONFIG, WEIGHTS, CARD, FILES})
    else:
        others = [folder.name] if folder.exists() else []
    if others:
        raise FileExistsError(
            f"{folder} holds {', '.join(map(repr, others[:3]))}{' and more' * (len(others) > 3)}; expected a folder "
            "that is not there, an empty one, or an earlier export and nothing else, which would be replaced. Name "
            "another folder."
        )


@contextmanager
def write_folder(target: Path) -> Iterator[Path]:
    """Give a folder to write to, which takes the target's place when all is well.

    Args:
        target: Not there, empty, or an earlier export; see :func:`refuse_taken`.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> with tempfile.TemporaryDirectory() as scratch:
        ...     with write_folder(Path(scratch) / "captioner") as draft:
        ...         _ = (draft / CARD).write_text("A card.")
        ...     (Path(scratch) / "captioner" / CARD).read_text()
        'A card.'
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
            draft, old = Path(scratch) / "new", Path(scratch) / "old"
            draft.mkdir()
            yield draft
            if target.is_dir():
                target.rename(old)
            draft.rename(target)
    except OSError as error:
        if error.errno is None and not isinstance(error, shutil.Error):
            raise  # no word of the system: what was exported is not as it should be
        raise OSError(f"{target} cannot be written: {error}. Expected a folder that may be; name another.") from error
