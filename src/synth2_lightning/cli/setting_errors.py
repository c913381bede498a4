"""One-sentence messages for mistyped names in run files and arguments.

jsonargparse reports an error of a nested class once per class around it, and once per type that the value might have.
:func:`explain_setting_error` is applied at each level: it finds the sentence of the level below, and extends its path.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from pkgutil import iter_modules, resolve_name
from typing import Any

from jsonargparse import Namespace

from synth2_lightning.cli.errors import suggest
from synth2_lightning.io.trusted_packages import OWN_PACKAGE, trusted_packages

_UNKNOWN_SETTING = re.compile(
    r"unrecognized arguments: --([\w.]+)"
    r"|Option '([\w.]+)' is not accepted"
    r"|Group '([\w.]+)' does not accept option '([\w.]+)'"
    r"|Subcommand '\w+' does not accept option '([\w.]+)'"
)
_UNKNOWN_CLASS = re.compile(
    r"module '([\w.]+)' has no attribute '(\w+)'"
    r"|No module named '([\w.]+)'"
    r"|Expected a dot import path string: (\w+)"
)
_SENTENCE = re.compile(
    r"(There is no (?:setting|class '[\w.]+' for the setting) ')([\w.]+)('(?: of \w+)?)"
    r"\.((?: Did you mean '[\w.]+'\?| Expected one of [\w, ]+\.)?)"
)


def explain_setting_error(message: str, defaults: Namespace) -> str:
    r"""Return a sentence with the nearest name for a mistyped setting or class; other messages are returned unchanged.

    Args:
        message: Message of a parser, which contains those of the parsers of nested classes.
        defaults: Values of all settings of the parser.

    Example:
        >>> explain_setting_error("Option 'lrr' is not accepted", Namespace(lr=0.1, weight_decay=0.0))
        "There is no setting 'lrr'. Did you mean 'lr'?"
        >>> nested = 'Parser key "optimizer":\n  Problem with given class_path ' + (
        ...     "'torch.optim.AdamW':\n    There is no setting 'lrr'. Did you mean 'lr'?"
        ... )
        >>> explain_setting_error(nested, Namespace(optimizer=None))
        "There is no setting 'optimizer.init_args.lrr' of AdamW. Did you mean 'lr'?"
    """
    key = re.match(r'Parser key "([\w.]+)"', message)
    if found := _SENTENCE.search(message):
        start, path, owner, end = found.groups()
        if key is not None:
            before = message[: found.start()]
            classes = re.findall(r"given class_path '[\w.]*?(\w+)'", before)
            if classes and start == "There is no setting '" and ".init_args." not in path:
                owner = f"' of {classes[-1]}"
            is_class = classes or "expects a function or a callable class" in before
            path = f"{key[1]}.{'init_args.' if is_class else ''}{path}"
        return f"{start}{path}{owner}.{end}"
    if found := _UNKNOWN_SETTING.search(message):
        return _explain_unknown_setting(".".join(filter(None, found.groups())), defaults)
    if key is not None and (found := _UNKNOWN_CLASS.search(message)):
        path = ".".join(filter(None, found.groups()))
        # A class may exist, and its module import another one that does not.
        is_given = re.search(rf"(?<![\w.]){re.escape(path)}(?!\w)", message.replace(found[0], ""))
        if is_given or found[4]:
            return f"There is no class {path!r} for the setting {key[1]!r}.{suggest_class(path)}"
    return message


def explain_denied_import(message: str) -> str:
    """Return an explanation of the parser's refusal to import a class; other messages are returned unchanged.

    Example:
        >>> "--trust my_heads" in explain_denied_import("Importing 'my_heads.Captioner' is not allowed")
        True
    """
    denied = re.search(
        r"(?:Importing|A run file names) '((\w+)[\w.]*)'(?: is not allowed|, and a run file may)", message
    )
    if denied is None:
        return message
    return (
        f"A run file names {denied[1]!r}; expected classes of synth2_lightning, torch, lightning or transformers, "
        "because importing another package runs its code. Nothing was imported. If you trust that package, allow it: "
        f"--trust {denied[2]}"
    )


def suggest_class(path: str) -> str:
    """Return a question that suggests a similar import path; empty if there is none.

    Args:
        path: Import path of which the last part does not exist, or the name of a class.

    Example:
        >>> suggest_class("torch.optim.AdmW")
        " Did you mean 'torch.optim.AdamW'?"
        >>> suggest_class("PrefixDecodr")
        " Did you mean 'synth2_lightning.decoders.prefix.PrefixDecoder'?"
    """
    parent, _, name = path.rpartition(".")
    if parent.partition(".")[0] in trusted_packages() and (near := suggest(name, _list_members(parent))):
        return near.replace("'", f"'{parent}.", 1)
    paths = {found.rpartition(".")[2]: found for found in _list_classes()}
    near = suggest(name, list(paths))
    return re.sub(r"'(\w+)'", lambda match: repr(paths[match[1]]), near)


def _explain_unknown_setting(path: str, settings: Any) -> str:
    """Return a sentence about the first part of a path that is not among the settings."""
    parts = path.split(".")
    for number, name in enumerate(parts, 1):
        known = sorted(vars(settings)) if isinstance(settings, Namespace) else []
        if name not in known:
            near = suggest(name, [*known, "class_path", "init_args"])
            near = near or (f" Expected one of {', '.join(known)}." if known else "")
            return f"There is no setting {'.'.join(parts[:number])!r}.{near}"
        settings = settings[name]
    return f"There is no setting {path!r}."


def _list_members(path: str) -> list[str]:
    """Return the names of the submodules and of the public attributes of a module."""
    try:
        module = resolve_name(path)
    except (ImportError, AttributeError, ValueError):
        return []
    names = [name for name in dir(module) if not name.startswith("_")]
    return names + [found.name for found in iter_modules(getattr(module, "__path__", []))]


def _list_classes() -> Iterator[str]:
    """Yield the import paths of the loaded classes of trusted packages, and of all classes of this package."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in trusted_packages() and "._" not in name:
            for attribute, value in list(vars(module).items()):
                # Not isinstance, which reads __class__: of a deprecated object that warns.
                if issubclass(type(value), type) and value.__module__ == name:
                    yield f"{name}.{attribute}"
    folder = Path(__file__).parents[1]
    for file in sorted(folder.rglob("*.py")):  # to import all modules would take seconds
        module_path = ".".join([OWN_PACKAGE, *file.relative_to(folder).with_suffix("").parts])
        for class_name in re.findall(r"^class ([A-Z]\w*)", file.read_text("utf-8"), re.MULTILINE):
            yield f"{module_path}.{class_name}"
