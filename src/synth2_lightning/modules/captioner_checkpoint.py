"""Reading captioners from checkpoints without executing code from them."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.optim import AdamW

from synth2_lightning.io.checkpoint_files import read_checkpoint
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.modules.saved_module import build_module, read_class_spec

_OF_TRAINING: dict[str, Any] = {"optimizer": AdamW, "lr_scheduler": None}
"""Arguments that concern training only, and the values that replace them."""

_IN_MEMORY = "in memory"


def describe_captioner(checkpoint: Path) -> tuple[dict[str, Any], int]:
    """Return the class and arguments of the captioner in a checkpoint, as plain values, and its number of steps.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is damaged, may contain code, or does not record the arguments of a captioner's components.
    """
    content = read_checkpoint(checkpoint)
    if not isinstance(content.get("global_step"), int):
        raise ValueError(f"The checkpoint {checkpoint} has no global_step; expected one that a Trainer wrote.")
    return _describe(content, checkpoint), content["global_step"]


def describe_module(module: VisionLanguageModule) -> dict[str, Any]:
    """Return the class and arguments of a captioner as plain values, with its present decoding parameters.

    Raises:
        ValueError: If a component cannot be described.
    """
    return _describe(_content(module), _IN_MEMORY)


def copy_captioner(module: VisionLanguageModule) -> VisionLanguageModule:
    """Return a captioner that is constructed from the description of another one, with its weights, on the CPU.

    Raises:
        ValueError: If a component cannot be described, or is of a class that another process cannot import.
    """
    return build_module(VisionLanguageModule, _content(module), _IN_MEMORY, _OF_TRAINING)


def read_captioner(checkpoint: Path) -> VisionLanguageModule:
    """Read a captioner with all its weights from a checkpoint, to the CPU.

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


def _content(module: VisionLanguageModule) -> dict[str, Any]:
    settings = dict(module.hparams)
    if "generation" in settings:
        settings["generation"] = asdict(module.generation)  # Captioner may have changed it
    return {"hyper_parameters": settings, "state_dict": module.state_dict()}


def _describe(content: Mapping[str, Any], checkpoint: Path | str) -> dict[str, Any]:
    class_path, arguments = _read_spec(content, checkpoint)
    kept = {name: value for name, value in arguments.items() if name not in _OF_TRAINING}
    return {"class_path": class_path, "init_args": kept}


def _read_spec(content: Mapping[str, Any], checkpoint: Path | str) -> tuple[str, dict[str, Any]]:
    class_path, arguments = read_class_spec(content, checkpoint)
    if class_path is None and "image_encoder" not in arguments:
        raise ValueError(
            f"The checkpoint {checkpoint} records no components of a captioner (arguments {sorted(arguments)}); "
            "expected one of a VisionLanguageModule. To caption with another module, pass it to Captioner."
        )
    return class_path or f"{VisionLanguageModule.__module__}.{VisionLanguageModule.__qualname__}", arguments
