"""Layout of the folder of an exported captioner."""

from pathlib import Path

from synth2_lightning.export.component_files import FILES
from synth2_lightning.io.atomic import OWN_NAMES, complete_folder
from synth2_lightning.io.json_text import parse_json
from synth2_lightning.io.messages import name_first
from synth2_lightning.io.paths import check_not_special

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
PROCESSOR = frozenset({"processor_config.json", "tokenizer.json", "tokenizer_config.json"})
"""Files of the processor of transformers."""
ONNX = "onnx"
CONTENT = frozenset({CONFIG, WEIGHTS, CARD, FILES, ONNX}) | PROCESSOR
FORMAT = "synth2-lightning captioner"
MODEL_TYPE, ARCHITECTURE = "synth2", "Synth2ForConditionalGeneration"
"""Names by which transformers finds the classes of :mod:`synth2_lightning.transformers`."""


def is_exported(folder: str | Path) -> bool:
    """Return whether a folder holds a captioner that ``synth2 export`` wrote."""
    try:
        config = check_not_special(complete_folder(Path(folder)) / CONFIG)
        return bool(parse_json(config.read_bytes())["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def check_replaceable(folder: Path) -> None:
    """Raise on a folder that holds anything but an earlier export.

    Raises:
        FileExistsError: If it holds other files, or is a file.
    """
    if folder.is_dir():
        others = sorted({path.name for path in folder.iterdir()} - OWN_NAMES)
        if is_exported(folder):
            others = sorted(set(others) - CONTENT)
    else:
        others = [folder.name] if folder.exists() else []
    if others:
        raise FileExistsError(
            f"{folder} holds {name_first(map(repr, others))}; expected a folder "
            "that is new, empty, or holds only an earlier export, which would be replaced. Name another folder."
        )
