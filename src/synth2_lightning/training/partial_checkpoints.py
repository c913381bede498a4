"""Checkpoints without frozen weights."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from torch import nn

from synth2_lightning.io.messages import name_first


def exclude_frozen(module: nn.Module, frozen: Collection[str] = ()) -> None:
    """Exclude frozen weights from ``module.state_dict()``; ``module.load_state_dict()`` keeps the present ones.

    Excluded are parameters that require no gradient, buffers of modules whose parameters all require none, and
    everything in the frozen components. Modules that contain the module, such as ``AveragedModel``, exclude them too.

    Args:
        module: A module; its children may be added later.
        frozen: Names of children that are never trained.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1).requires_grad_(False), nn.Linear(1, 1))
        >>> exclude_frozen(model)
        >>> list(model.state_dict())
        ['1.weight', '1.bias']
        >>> model.load_state_dict(model.state_dict())
        <All keys matched successfully>
    """
    module.register_state_dict_post_hook(partial(_exclude, frozen))
    module.register_load_state_dict_pre_hook(partial(_fill_in, frozen))


def check_weight_names(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Raise on a state dict with other names than those of a module after :func:`exclude_frozen`.

    Raises:
        ValueError: If a trained weight is missing, or a name is unknown.
    """
    expected, given = set(module.state_dict()), set(state)
    if expected != given:
        missing, unknown = sorted(expected - given), sorted(given - expected)
        raise ValueError(
            f"The checkpoint does not fit {type(module).__name__}: {len(missing)} trained weights are missing "
            f"({name_first(missing) or 'none'}) and {len(unknown)} are unknown ({name_first(unknown) or 'none'})"
            "; expected the same components as in training. Use the config.yaml of the checkpoint's run."
        )


def _exclude(frozen: Collection[str], module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in _frozen_names(module, frozen):
        state.pop(prefix + name, None)


def _fill_in(frozen: Collection[str], module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    present: dict[str, Any] = dict(module.named_parameters(recurse=False))
    for name, part in module.named_children():
        part.state_dict(destination=present, prefix=f"{name}.")
    for name in _frozen_names(module, frozen) & present.keys():
        state.setdefault(prefix + name, present[name])


def _frozen_names(module: nn.Module, frozen: Collection[str]) -> set[str]:
    names = {name for name, weight in module.named_parameters(remove_duplicate=False) if not weight.requires_grad}
    for path, inner in module.named_modules(remove_duplicate=False):
        is_frozen_component = path.split(".")[0] in frozen
        own = list(inner.parameters(recurse=False))
        # Buffers of modules with frozen parameters only, such as running statistics, are frozen too.
        if is_frozen_component or (own and not any(weight.requires_grad for weight in own)):
            names |= {f"{path}.{name}" for name, _ in inner.named_buffers(recurse=False)}
        if is_frozen_component:
            names |= {f"{path}.{name}" for name, _ in inner.named_parameters(recurse=False)}
    return names
