"""Reading captioners from checkpoints of ``synth2 fit`` without executing code from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.optim import AdamW

from synth2_lightning.io.checkpoint_files import read_checkpoint
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.modules.saved_module import build_module, read_class_spec

_OF_TRAINING: dict[str, Any] = {"optimizer": AdamW, "lr_scheduler": None}
"""Arguments that concern training only, and the values that replace them."""


def describe_captioner(checkpoint: Path) -> tuple[dict[str, Any], int]:
    """Return the class and arguments of the captioner in a checkpoint, as plain values, and its number of steps.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is damaged, may contain code, or does not record the arguments of a captioner's components.
    """
    content = read_checkpoint(checkpoint)
    class_path, arguments = _read_spec(content, checkpoint)
    if not isinstance(content.get("global_step"), int):
        raise ValueError(f"The checkpoint {checkpoint} has no global_step; expected one that `synth2 fit` wrote.")
    kept = {name: value for name, value in arguments.items() if name not in _OF_TRAINING}
    return {"class_path": class_path, "init_args": kept}, content["global_step"]


def read_captioner(checkpoint: Path) -> VisionLanguageModule:
    """Read a captioner with all its weights from a checkpoint of ``synth2 fit``, to the CPU.

    Only tensors and plain values are unpickled. The classes that they name must be of trusted packages (see
    :func:`~synth2_lightning.io.trusted_packages.trusting`) and of the type of the argument.

    Raises:
        FileNotFoundError: If it is missing, or a file that a component reads.
        ValueError: If it is damaged, may contain code, is not of a captioner, does not record the arguments of its
            components, or names classes that are not trusted.
    """
    content = read_checkpoint(checkpoint)
    _read_spec(content, checkpoint)
    return build_module(VisionLanguageModule, content, checkpoint, _OF_TRAINING)


def _read_spec(content: Mapping[str, Any], checkpoint: Path) -> tuple[str, dict[str, Any]]:
    class_path, arguments = read_class_spec(content, checkpoint)
    if "image_encoder" not in arguments:
        raise ValueError(
            f"The checkpoint {checkpoint} records no components of a captioner (class {class_path!r}, arguments "
            f"{sorted(arguments)}); expected one of a captioner that `synth2 fit` trained. Checkpoints of a script do "
            "not record their components: build the module and pass it to Captioner. Other models have other exports."
        )
    return class_path or f"{VisionLanguageModule.__module__}.{VisionLanguageModule.__qualname__}", arguments
