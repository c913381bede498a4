"""Hyperparameters of modules in checkpoints: the classes and arguments of their components."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import LightningModule

from synth2_lightning.compat.lightning import CLASS_PATH_KEY, INSTANTIATOR_KEY
from synth2_lightning.io.class_specs import build_class, copy_plain, find_class
from synth2_lightning.io.locations import hub_from_cache
from synth2_lightning.io.messages import one_line
from synth2_lightning.io.recorded_specs import Component
from synth2_lightning.io.trusted_packages import OWN_PACKAGE, check_packages

Module = TypeVar("Module", bound=LightningModule)
_REFUSED_KEY = "_refused"


def make_hyperparameters(module: Component) -> dict[str, Any]:
    """Return what ``LightningCLI`` would record of a module that a script constructs.

    Example:
        >>> from synth2_lightning.modules.captioning import VisionLanguageModule
        >>> from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler
        >>> module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
        >>> make_hyperparameters(module)["decoder"]
        {'class_path': 'synth2_lightning.testing.components.TinyDecoder'}
    """
    described, refused = module.recorded_arguments
    reasons = {_REFUSED_KEY: refused} if refused else {}
    return {CLASS_PATH_KEY: _path_of(type(module)), **reasons, **described}


def read_class_spec(content: Mapping[str, Any], checkpoint: Path | str) -> tuple[str | None, dict[str, Any]]:
    """Return the class path of the module in a checkpoint, and its arguments as plain values.

    Returns:
        The class path and the arguments; None and the arguments, if the class is not recorded.

    Raises:
        ValueError: If the hyperparameters are not a mapping, nest too deeply, or contain more than plain values.

    Example:
        >>> read_class_spec({"hyper_parameters": {"lr": 0.1}}, Path("last.ckpt"))
        (None, {'lr': 0.1})
    """
    settings = copy_plain(content.get("hyper_parameters") or {}, f"The description in the checkpoint {checkpoint}")
    if not isinstance(settings, dict):
        raise ValueError(f"The checkpoint {checkpoint} has the hyperparameters {settings!r:.100}; expected a mapping.")
    for key in (INSTANTIATOR_KEY, _REFUSED_KEY):
        settings.pop(key, None)
    class_path = settings.pop(CLASS_PATH_KEY, None)
    if class_path is not None and not isinstance(class_path, str):
        raise ValueError(
            f"The checkpoint {checkpoint} has the class path {class_path!r:.100}; expected an import path."
        )
    return class_path, settings


def build_module(
    expected: type[Module], content: dict[str, Any], checkpoint: Path | str, replaced: Mapping[str, Any]
) -> Module:
    """Return the module of a checkpoint, with its weights, on the CPU.

    Args:
        expected: Base class of the module.
        content: Content of the checkpoint.
        checkpoint: Its path or another name, for error messages.
        replaced: Arguments that replace those in the checkpoint.

    Raises:
        ValueError: If a class is not trusted or not of the expected type, or the weights do not fit.
    """
    class_path, described = read_class_spec(content, checkpoint)
    described = {name: value for name, value in described.items() if name not in replaced}
    check_packages({"class_path": class_path or OWN_PACKAGE, "init_args": described})
    is_expected = class_path in (None, _path_of(expected))  # a class of a notebook cannot be imported
    part = expected if is_expected else find_class(class_path, (expected,), f"The model of {checkpoint}")
    with hub_from_cache():
        try:
            module: Module = build_class(part, {**described, **replaced}, "model")
        except ValueError as error:
            raise ValueError(
                f"The module of the checkpoint {checkpoint} cannot be constructed. {error}{_explain_refused(content)}"
            ) from error
        module.configure_model()
    module.on_load_checkpoint(content)
    try:
        module.load_state_dict(content.get("state_dict", {}))
    except (RuntimeError, TypeError, AttributeError) as error:  # of other shapes, and of values that are not tensors
        raise ValueError(
            f"The weights in {checkpoint} do not fit the module that it describes: "
            f"{one_line(error)}. Expected an unchanged checkpoint."
        ) from error
    return module


def _path_of(class_: type) -> str:
    return f"{class_.__module__}.{class_.__qualname__}"


def _explain_refused(content: Mapping[str, Any]) -> str:
    refused = (content.get("hyper_parameters") or {}).get(_REFUSED_KEY)
    if not isinstance(refused, Mapping):
        return ""
    reasons = " ".join(f"{reason}." for reason in refused.values())
    return (
        f" The checkpoint does not describe {', '.join(map(str, refused))}: {reasons} Pass what is missing to "
        "load_from_checkpoint, or train with components that can be described."
    )
