"""One-sentence messages for mistyped names and values in run files and arguments.

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
_WRONG_VALUE = re.compile(r'Parser key "([\w.]+)":\s+Expected an? ([^\n]+)\. Got value: (.*)', re.DOTALL)
_WRONG_VALUE_OF_UNION = re.compile(
    r'Parser key "([\w.]+)":\s+Does not validate against any of the Union subtypes\s+Subtypes: \[([^\n]*)\]\n'
    r".*\n *Given value: (.*)",
    re.DOTALL,
)
_WRONG_PATH = re.compile(
    r'Parser key "([\w.]+)":.*?Expected a path but (\S+\.(?:ya?ml|json)) either not accessible or invalid', re.DOTALL
)
_WRONG_CLASS = re.compile(r"Expected '([\w.]+)' to be a subclass of <class '([\w.]+)'>")
_REQUIRED = re.compile(r"the following arguments are required: ([\w.]+)[^\n]*$")
_VALUE_SENTENCE = re.compile(
    r"The setting '([\w.]+)'( (?:is required|has the value .*?), expected [^\n]*?\.)(?=\s|\.|$)"
)
_CHECKPOINT = "a checkpoint of `synth2 fit`, such as runs/version_1/checkpoints/last.ckpt,"
_OF_BASE_CLASSES = (" of LightningModule", " of LightningDataModule")  # no run file has named a class
_OVERLAY = (
    " If the run file is an overlay, expected the one that it changes before it: --config RUN_FILE --config OVERLAY."
)
_TYPES = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}


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
    if sentence := _explain_value(message, key[1] if key else ""):
        return sentence
    if found := _SENTENCE.search(message):
        start, path, owner, end = found.groups()
        if key is not None:
            before = message[: found.start()]
            classes = re.findall(r"given class_path '[\w.]*?(\w+)'", before)
            if classes and start == "There is no setting '" and ".init_args." not in path:
                owner = f"' of {classes[-1]}"
            path = _extend(key[1], before, path)
        return f"{start}{path}{owner}.{end}{_OVERLAY if owner.endswith(_OF_BASE_CLASSES) else ''}"
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


def list_own_classes(subpackage: str = "") -> Iterator[str]:
    """Yield the import paths of the classes of this package, or of a subpackage, without importing them.

    Example:
        >>> "synth2_lightning.modules.muse.MuseModule" in list_own_classes("modules")
        True
    """
    folder = Path(__file__).parents[1]
    for file in sorted((folder / subpackage).rglob("*.py")):  # to import all modules would take seconds
        module_path = ".".join([OWN_PACKAGE, *file.relative_to(folder).with_suffix("").parts])
        for class_name in re.findall(r"^class ([A-Z]\w*)", file.read_text("utf-8"), re.MULTILINE):
            yield f"{module_path}.{class_name}"


def _explain_value(message: str, key: str) -> str:
    """Return a sentence about a wrong value or a missing one; empty for other messages."""
    if found := _VALUE_SENTENCE.search(message):
        return f"The setting '{_extend(key, message[: found.start()], found[1])}'{found[2]}"
    if not key and (found := _REQUIRED.search(message)):
        if "." in found[1]:  # with the command's name: fit.model
            return f"The run files have no class_path for {found[1].rpartition('.')[2]!r}.{_OVERLAY}"
        value = _CHECKPOINT if found[1] == "checkpoint" else "a value"
        return f"The setting {found[1]!r} is required, expected {value} in a run file or as an argument."
    if key and (found := _WRONG_CLASS.search(message)):
        return f"The setting {key!r} has the value {found[1]!r}, expected a subclass of {found[2].rpartition('.')[2]}."
    reasons = re.findall(r"^ *- (.*)", message, re.MULTILINE)
    is_short = all(reason.startswith("Expected a") for reason in reasons)  # others say what is wrong in the file
    if key and is_short and (found := _WRONG_PATH.match(message)) and not Path(found[2]).exists():
        return f"The setting {key!r} has the value {found[2][:200]!r}, expected a file that exists, or its content."
    for pattern in (_WRONG_VALUE, _WRONG_VALUE_OF_UNION):
        if (found := pattern.fullmatch(message)) and "given class_path" not in message:
            expected = [_TYPES.get(name, name) for name in re.findall(r"<class '(\w+)'>", found[2])]
            expected += [f"one of {names}" for names in re.findall(r"Literal\[(.*?)\]", found[2])]
            if expected:
                return f"The setting {key!r} has the value {found[3].strip()[:80]!r}, expected {' or '.join(expected)}."
    return ""


def _extend(key: str, before: str, path: str) -> str:
    """Return the path of a setting of a nested class, with the key of the class; ``before`` describes the class."""
    is_class = "given class_path" in before or "expects a function or a callable class" in before
    return f"{key}.{'init_args.' if is_class else ''}{path}" if key else path


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
    yield from list_own_classes()
