"""Differences between the settings saved in a checkpoint and those of the present run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

RECORD = "run_settings"
"""Key of the saved settings in a checkpoint."""
NO_RECORD = "the checkpoint records no settings"
"""The only line of :func:`list_changes` for a checkpoint without saved settings."""
_OPTIMIZATION = {"optimizer", "lr_scheduler", "generation", "compile_network"}
"""Arguments of modules that are not part of the network."""
_MAX_LINES = 20
_MAX_CHARACTERS = 60
_LISTS = (list, tuple)

Settings = dict[str, Any]


def list_changes(checkpoint: Mapping[str, Any], settings: Settings) -> list[str]:
    """Return one line for each setting that breaks an exact resume; an empty list if training would resume exactly.

    Args:
        checkpoint: Content of a checkpoint; nothing in it is built or called.
        settings: Settings of the present run, from :func:`~synth2_lightning.callbacks.run_settings.collect_settings`.

    Example:
        >>> saved = {RECORD: {"exact": {"data": {"batch_size": 8}}}}
        >>> list_changes(saved, {"exact": {"data": {"batch_size": 4}}})
        ['data.batch_size: 8 -> 4']
    """
    record = checkpoint.get(RECORD)
    if not isinstance(record, Mapping) or not isinstance(record.get("exact"), Mapping):
        return [NO_RECORD]
    return list(compare(record["exact"], settings["exact"]))


def list_network_changes(checkpoint: Mapping[str, Any], settings: Settings) -> list[str]:
    """Return one line for each setting of the network that differs; for ``validate``, ``test`` and ``predict``.

    Example:
        >>> list_network_changes({}, {"exact": {"model": {}}})
        []
    """
    record = checkpoint.get(RECORD)
    exact = record.get("exact") if isinstance(record, Mapping) else None
    saved = exact.get("model") if isinstance(exact, Mapping) else None
    if not isinstance(saved, Mapping):
        return []  # load_state_dict refuses weights that do not fit
    present = drop_arguments(settings["exact"]["model"], _OPTIMIZATION)
    return list(compare({"model": drop_arguments(saved, _OPTIMIZATION)}, {"model": present}))


def format_changes(changes: Sequence[str]) -> str:
    """Return the lines of :func:`list_changes` for a message, at most 20 of them."""
    lines = [*changes[:_MAX_LINES], f"and {len(changes) - _MAX_LINES} more"][: len(changes)]
    return "".join(f"\n  {line}" for line in lines)


def explain_network_changes(path: object, changes: Sequence[str]) -> str:
    """Return the error message for evaluating a network other than the trained one."""
    return (
        f"The network differs from that of the checkpoint {path} (saved -> now):{format_changes(changes)}\nExpected "
        "the network that was trained. Use the config.yaml of its run, or select another checkpoint with "
        "--ckpt_path PATH."
    )


def explain_changes(path: object, changes: Sequence[str]) -> str:
    """Return the error message for resuming with other settings."""
    return (
        f"The settings differ from those that the checkpoint {path} was trained with (saved -> now):"
        f"{format_changes(changes)}\nExpected the same settings, so that the run resumes exactly. Restore them; or "
        "resume with the changes as a new run, with --resume_with_changes=true; or select another checkpoint with "
        "--ckpt_path PATH; or start a new run without --ckpt_path."
    )


def drop_arguments(node: Any, names: set[str]) -> Any:
    """Return a class spec without the named arguments, at all levels."""
    if not isinstance(node, Mapping):
        return node
    return {name: drop_arguments(value, names) for name, value in node.items() if name not in names}


def compare(saved: object, present: object, key: str = "") -> Iterator[str]:
    """Yield one line for each value that differs, as ``key: saved -> present``.

    The recursion follows the present settings: saved ones come from a file and may be of any depth.
    """
    if isinstance(saved, Mapping) and isinstance(present, Mapping):
        if saved.get("class_path") != present.get("class_path"):
            yield f"{key}.class_path: {_format(saved.get('class_path'))} -> {_format(present.get('class_path'))}"
            return
        for name in present:
            yield from compare(saved.get(name), present[name], f"{key}.{name}".strip("."))
        for name in sorted(str(name) for name in saved.keys() - present.keys() if saved[name] is not None):
            yield f"{key}.{_format(name)[1:-1]}: {_format(saved.get(name))} -> none"
    elif isinstance(saved, _LISTS) and isinstance(present, _LISTS) and len(saved) == len(present):
        for number, (old, new) in enumerate(zip(saved, present, strict=True)):
            yield from compare(old, new, f"{key}[{number}]")
    elif _differ(saved, present):
        yield f"{key}: {_format(saved)} -> {_format(present)}"


def _differ(saved: object, present: object) -> bool:
    are_numbers = {type(saved), type(present)} == {int, float}
    return (type(saved) is not type(present) and not are_numbers) or bool(saved != present)


def _format(value: object) -> str:
    """Return a value as one short line without control characters."""
    if isinstance(value, Mapping):
        name = value.get("class_path")
        return _format(name) if isinstance(name, str) else f"{len(value)} values"
    if isinstance(value, _LISTS):
        return f"a list of {len(value)}"
    if value is None:
        return "none"
    if isinstance(value, str):
        text = json.dumps(value[: _MAX_CHARACTERS + 1])
    elif isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= _MAX_CHARACTERS):
        text = json.dumps(value)
    else:
        text = type(value).__name__
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}..."
