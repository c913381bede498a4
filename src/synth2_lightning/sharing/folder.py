"""The folder of an exported captioner: what is in it, and what is not."""

from pathlib import Path

from synth2_lightning.files import OWN_NAMES, refuse_special, whole_folder
from synth2_lightning.jsontext import parse_json
from synth2_lightning.sharing.files import FILES

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
CONTENT = frozenset({CONFIG, WEIGHTS, CARD, FILES})
FORMAT = "synth2-lightning captioner"


def is_exported(folder: str | Path) -> bool:
    """Whether a folder holds a captioner that ``synth2 export`` wrote.

    Example:
        >>> is_exported("runs/version_0")
        False
    """
    try:
        config = refuse_special(whole_folder(Path(folder)) / CONFIG)
        return bool(parse_json(config.read_bytes())["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def refuse_taken(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier export.

    Raises:
        FileExistsError: If it does.
    """
    if folder.is_dir():
        others = sorted({path.name for path in folder.iterdir()} - OWN_NAMES)
        if is_exported(folder):
            others = sorted(set(others) - CONTENT)
    else:
        others = [folder.name] if folder.exists() else []
    if others:
        raise FileExistsError(
            f"{folder} holds {', '.join(map(repr, others[:3]))}{' and more' * (len(others) > 3)}; expected a folder "
            "that is not there, an empty one, or an earlier export and nothing else, which would be replaced. Name "
            "another folder."
        )
