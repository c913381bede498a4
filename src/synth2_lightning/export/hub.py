"""Captioners on the Hugging Face Hub."""

from pathlib import Path

from synth2_lightning.export.component_files import FILES
from synth2_lightning.export.folder import CARD, CONFIG, ONNX, PROCESSOR, WEIGHTS
from synth2_lightning.io.hub import download, parse_repository
from synth2_lightning.io.locations import resolve

_LOADED = (CONFIG, WEIGHTS, CARD, f"{FILES}/**")
EXPORT_FILES = (*_LOADED, *sorted(PROCESSOR), f"{ONNX}/**")
"""Files of an export on the Hub; those of transformers and ONNX are not downloaded here."""
_WHAT = "trained captioner"


def locate_export(location: str | Path) -> Path:
    """Return the local path of a captioner, downloaded from the Hub if it is the name of an export there.

    Args:
        location: A path, ``OWNER/NAME`` or ``OWNER/NAME@REVISION``. What exists, or is in a folder that exists, is a
            path.

    Raises:
        FileNotFoundError: If the path does not exist.
        OSError: If the Hub cannot be reached, or has no such repository.
    """
    repository = parse_repository(location) if isinstance(location, str) else None
    if repository is None or Path(location).parent.is_dir():
        return resolve(location, _WHAT)
    try:
        return download(repository, _WHAT, _LOADED)
    except OSError as error:
        # With a slash, the folder of a run reads like a name on the Hub.
        error.add_note(
            f"If it is a folder, it is not at {Path(location).absolute()}: start the command in the folder where "
            "the run was started, or give its full path."
        )
        raise
