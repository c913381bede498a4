"""Captioners read back from checkpoints of ``synth2 fit``, without running what a checkpoint names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch.optim import AdamW

from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.modules.saved_module import build_module, read_class_spec
from synth2_lightning.weight_files import read_checkpoint

_OF_TRAINING: dict[str, Any] = {"optimizer": AdamW, "lr_scheduler": None, "compile_trained": False}
"""Arguments that say how a captioner was trained, not what it is, and what stands for them."""


def describe_captioner(checkpoint: Path) -> tuple[dict[str, Any], int]:
    """Return the class spec of the captioner in a checkpoint, in plain values, and the number of its training steps.

    Args:
        checkpoint: The file.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is damaged, may hold code, or does not say how the parts of a captioner are made.
    """
    content = read_checkpoint(checkpoint)
    class_path, arguments = _read_spec(content, checkpoint)
    if not isinstance(content.get("global_step"), int):
        raise ValueError(f"The checkpoint {checkpoint} does not say its step; expected one that `synth2 fit` wrote.")
    kept = {name: value for name, value in arguments.items() if name not in _OF_TRAINING}
    return {"class_path": class_path, "init_args": kept}, content["global_step"]


def read_captioner(checkpoint: Path) -> VisionLanguageModule:
    """Read a captioner from a checkpoint of ``synth2 fit``, with all its weights, on the processor.

    Only tensors and plain values are unpickled. They name the classes of the parts: each must be of a trusted package
    (see :func:`~synth2_lightning.class_specs.trusting`) and of the type that its place asks for.

    Args:
        checkpoint: The file.

    Raises:
        FileNotFoundError: If it is missing, or a file that a part reads.
        ValueError: If it is damaged, may hold code, is no captioner's, does not say how its parts are made, or names
            classes that are not trusted.
    """
    content = read_checkpoint(checkpoint)
    _read_spec(content, checkpoint)
    return cast(VisionLanguageModule, build_module(VisionLanguageModule, content, checkpoint, _OF_TRAINING))


def _read_spec(content: Mapping[str, Any], checkpoint: Path) -> tuple[str, dict[str, Any]]:
    class_path, arguments = read_class_spec(content, checkpoint)
    if "image_encoder" not in arguments:
        raise ValueError(
            f"The checkpoint {checkpoint} does not say how a captioner's parts are made (its class is {class_path!r}, "
            f"its settings are {sorted(arguments)}). Expected one of a captioner that `synth2 fit` trained. Those of a "
            "script have no run file: build the module and give it to Captioner. Other models have exports of their "
            "own."
        )
    return class_path or f"{VisionLanguageModule.__module__}.{VisionLanguageModule.__qualname__}", arguments
