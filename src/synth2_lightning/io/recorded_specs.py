"""Class specs of objects that a script constructed, as run files have them.

:mod:`synth2_lightning.io.class_specs` builds objects from class specs; this module is the inverse.
"""

import inspect
from abc import ABCMeta
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from inspect import Parameter
from pathlib import Path
from typing import Any, NamedTuple

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class RecordedArguments(NamedTuple):
    """Constructor arguments of an object.

    Attributes:
        described: Arguments by name, as :func:`describe` returns them.
        refused: The reason by name of each argument that cannot be described.
    """

    described: dict[str, Any]
    refused: dict[str, str]


class Component:
    """Base class of components, which record the arguments of their constructor.

    So a checkpoint describes its module's components, and is loaded without the script that constructed them. Defaults
    are recorded, too. A component with an argument that :func:`describe` refuses cannot be described.

    Example:
        >>> from synth2_lightning.nn.perceiver import PerceiverResampler
        >>> describe(PerceiverResampler(num_latents=4))["init_args"]["num_latents"]
        4
    """

    recorded_arguments: RecordedArguments

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Record the arguments before ``__init__`` can change them."""
        component = super().__new__(cls)
        object.__setattr__(component, "recorded_arguments", _record(cls, args, kwargs))
        return component


def describe(value: object, where: str = "the value") -> Any:
    """Return a value as a run file would have it, from which ``build_component`` builds an equal one.

    Args:
        value: A plain value, a sequence or mapping of values, a path, a dataclass, a :class:`Component`, a class, or a
            ``functools.partial`` of a class with keyword arguments.
        where: Name of the value, for messages.

    Raises:
        TypeError: If it is anything else, such as a function, or of a class that no other process can import.

    Example:
        >>> from functools import partial
        >>> from torch.optim import AdamW
        >>> describe(partial(AdamW, lr=0.1))
        {'class_path': 'torch.optim.adamw.AdamW', 'init_args': {'lr': 0.1}}
    """
    match value:
        case None | bool():
            return value
        case str():
            return str.__str__(value)  # a plain string also of an enumeration
        case int():
            return int(value)
        case float():
            return float(value)
        case Path():
            return str(value)
        case Component():
            described, refused = value.recorded_arguments
            if refused:
                raise TypeError(f"{where} is a {type(value).__name__} that cannot be described: {_first(refused)}")
            return _make_spec(type(value), described)
        case type():
            return _make_spec(value, {})
        case partial() if isinstance(value.func, type) and not value.args:
            return _make_spec(value.func, {name: describe(each, name) for name, each in value.keywords.items()})
        case Mapping():
            return {str(key): describe(each, f"{where}.{key}") for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [describe(each, f"{where}[{row}]") for row, each in enumerate(value)]
    if is_dataclass(value):
        settings = {field.name: describe(getattr(value, field.name), field.name) for field in fields(value)}
        # A dataclass with an abstract base class is a component; others are settings, whose class the type hint names.
        return _make_spec(type(value), settings) if isinstance(type(value), ABCMeta) else settings
    raise TypeError(
        f"{where} is of type {type(value).__name__}, which cannot be recorded; expected a plain value, a component of "
        "this package or a subclass, a dataclass, a class, or a functools.partial of a class with keyword arguments"
    )


def class_path_of(class_: type) -> str:
    """Return the import path of a class.

    Raises:
        TypeError: If it is defined in a function.

    Example:
        >>> class_path_of(Component)
        'synth2_lightning.io.recorded_specs.Component'
    """
    path = f"{class_.__module__}.{class_.__qualname__}"
    if "<" in path:
        raise TypeError(f"{path} is defined in a function, so that it cannot be imported; define it in a module")
    return path


def _make_spec(class_: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"class_path": class_path_of(class_), **({"init_args": dict(arguments)} if arguments else {})}


def _record(class_: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> RecordedArguments:
    inits = [vars(base)["__init__"] for base in class_.__mro__ if "__init__" in vars(base)]
    given, rest = dict(kwargs), list(args)
    for init in inits:  # each passes its *args to the next one
        names = [each.name for each in _parameters(init) if each.kind in _POSITIONAL]
        given |= zip(names, rest, strict=False)
        rest = rest[len(names) :]
    # Of the first only: it may pass other values to the next one.
    defaults = {each.name: each.default for each in _parameters(inits[0]) if each.default is not Parameter.empty}
    values = {**defaults, **given}
    order = [each.name for init in inits for each in _parameters(init) if each.name in values]
    record = RecordedArguments({}, {})
    for name in dict.fromkeys([*order, *values]):
        try:
            record.described[name] = describe(values[name], name)
        except TypeError as error:
            if name in given:
                record.refused[name] = str(error)
    if rest:
        record.refused["*args"] = f"it got {len(rest)} arguments without a name"
    return record


def _parameters(init: Callable[..., None]) -> list[Parameter]:
    return list(inspect.signature(init).parameters.values())[1:]


def _first(reasons: Mapping[str, str]) -> str:
    return next(iter(reasons.values()))
