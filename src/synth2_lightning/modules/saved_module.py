"""Modules in checkpoints of ``synth2 fit``: how they are described there, and how they are built again."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from synth2_lightning.class_specs import OWN_PACKAGE, build_class, copy_plain, find_class, refuse_foreign_packages
from synth2_lightning.locations import hub_from_cache

_INSTANTIATOR, _CLASS_PATH = "_instantiator", "_class_path"  # Lightning's: present if its command line built the module


def read_class_spec(content: Mapping[str, Any], checkpoint: Path) -> tuple[str | None, dict[str, Any]]:
    """Return the class path of the module in a checkpoint, and its arguments as plain values.

    Args:
        content: What the checkpoint holds.
        checkpoint: Its file, for messages.

    Returns:
        ``None`` in place of the class path, and the plain arguments only, if a script built the module.

    Raises:
        ValueError: If the description is no mapping, nests too deeply, or holds more than plain values.

    Example:
        >>> read_class_spec({"hyper_parameters": {"lr": 0.1}}, Path("last.ckpt"))
        (None, {'lr': 0.1})
    """
    settings = copy_plain(content.get("hyper_parameters") or {}, f"The description in the checkpoint {checkpoint}")
    if not isinstance(settings, dict):
        raise ValueError(f"The checkpoint {checkpoint} has the settings {settings!r:.100}; expected a mapping.")
    settings.pop(_INSTANTIATOR, None)
    class_path = settings.pop(_CLASS_PATH, None)
    if class_path is not None and not isinstance(class_path, str):
        raise ValueError(f"The checkpoint {checkpoint} names the class {class_path!r:.100}; expected its import path.")
    return class_path, settings


def build_module(
    expected: type, content: dict[str, Any], checkpoint: Path, replaced: Mapping[str, Any] = MappingProxyType({})
) -> Any:
    """Build the module in a checkpoint, with its weights, on the processor.

    Args:
        expected: Class that it must be, or a subclass.
        content: What the checkpoint holds.
        checkpoint: Its file, for messages.
        replaced: Arguments that take the place of those in the checkpoint.

    Raises:
        ValueError: If it names classes that are not trusted or not of the expected type, or the weights do not fit.
    """
    class_path, described = read_class_spec(content, checkpoint)
    described = {name: value for name, value in described.items() if name not in replaced}
    refuse_foreign_packages({"class_path": class_path or OWN_PACKAGE, "init_args": described})
    part = expected if class_path is None else find_class(class_path, expected, "model")
    with hub_from_cache():
        try:
            module = build_class(part, {**described, **replaced}, "model")
        except ValueError as error:
            raise ValueError(f"The module in {checkpoint} cannot be built. {error}") from error
        module.configure_model()
    module.on_load_checkpoint(content)
    try:
        module.load_state_dict(content.get("state_dict", {}))
    except (RuntimeError, TypeError, AttributeError) as error:  # torch's words for other shapes, and for no tensors
        raise ValueError(
            f"The weights in {checkpoint} do not fit the module that it describes: "
            f"{' '.join(str(error).split())[:300]} Expected one that `synth2 fit` wrote, unchanged."
        ) from error
    return module
