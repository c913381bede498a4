"""Private names of third parties belong into ``synth2_lightning.compat``."""

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

import synth2_lightning

SOURCE = Path(synth2_lightning.__file__).parent
DOCUMENTED = {"_asdict", "_fields", "_make", "_replace", "_exit"}  # of named tuples and of os
EXTENSION_POINTS = {
    "_log_api_usage_once",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in DOCUMENTED


def parse_package() -> dict[str, ast.Module]:
    paths = {str(path.relative_to(SOURCE)): path for path in sorted(SOURCE.rglob("*.py"))}
    return {name: ast.parse(path.read_text()) for name, path in paths.items() if not name.startswith("compat/")}


def own_names(trees: list[ast.Module]) -> set[str]:
    """Names that the package defines: functions, classes, variables, and attributes assigned to ``self``."""
    names: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                names.add(name)
    return names


def private_uses(tree: ast.Module, own: set[str]) -> Iterator[tuple[int, str]]:
    """Lines and names of private attributes, private imports and replaced attributes of third parties."""
    imported: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=module, names=names) if not (module or "").startswith("synth2_lightning"):
                parts = {*(module or "").split("."), *(alias.name for alias in names)}
                yield from ((node.lineno, part) for part in sorted(filter(is_private, parts)))
                imported |= {alias.asname or alias.name for alias in names}
                if module == "unittest":
                    yield node.lineno, "unittest"
            case ast.Import(names=names):
                parts = {part for alias in names for part in alias.name.split(".")}
                yield from ((node.lineno, part) for part in sorted(filter(is_private, parts)))
                imported |= {alias.asname or alias.name.split(".")[0] for alias in names}
                if "unittest" in parts:
                    yield node.lineno, "unittest"
            case ast.Attribute(attr=name) if is_private(name) and name not in own:
                yield node.lineno, name
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr" | "delattr"), args=[_, name, *_]):
                if isinstance(name, ast.Constant) and is_private(str(name.value)) and name.value not in own:
                    yield node.lineno, str(name.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            root: ast.expr = node
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in imported:
                yield node.lineno, node.attr


def test_private_apis_are_used_in_compat_only() -> None:
    trees = parse_package()
    own = own_names(list(trees.values()))
    found = [f"{name}:{line} {use}" for name, tree in trees.items() for line, use in private_uses(tree, own)]
    assert found == [], "use a public API, or move it into synth2_lightning/compat"


@pytest.mark.parametrize(
    "code",
    [
        "from torch.optim._muon import Muon",
        "from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher",
        "import torch._dynamo",
        "trainer._signal_connector.received_sigterm = True",
        "class Loop:\n    def step(self):\n        self.trainer._results.cpu()",
        "getattr(model, '_prefill')(ids)",
        "import timm\ntimm.optim.muon.zeropower = None",
        "from unittest import mock",
    ],
)
def test_a_planted_use_is_found(code: str) -> None:
    own = own_names([ast.parse("class Own:\n    def _method(self):\n        self._attribute = 0")])
    assert len(list(private_uses(ast.parse(code), own))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "from synth2_lightning.types import _x",
        "from py3langid import __version__",
        "self._method(other._attribute)",
        "entry._replace(key=key)",
        "import torch\nweight = torch.zeros(1)\nweight.data = weight",
    ],
)
def test_own_names_and_public_ones_are_not_found(code: str) -> None:
    own = own_names([ast.parse("class Own:\n    def _method(self):\n        self._attribute = 0")])
    assert list(private_uses(ast.parse(code), own)) == []


@cache
def private_members(class_: type) -> frozenset[str]:
    """Private methods and attributes that a class itself defines, among them those that its methods assign."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(class_)))
    except (OSError, TypeError):  # a built-in class
        tree = ast.Module([], [])
    return frozenset(filter(is_private, own_names([tree]) & (own_names([tree]) | set(vars(class_)))))


def package_classes() -> Iterator[type]:
    for info in pkgutil.walk_packages(synth2_lightning.__path__, "synth2_lightning."):
        if not info.name.endswith("__main__"):
            module: ModuleType = importlib.import_module(info.name)
            yield from (each for each in vars(module).values() if getattr(each, "__module__", None) == info.name)


def overridden(class_: type) -> set[str]:
    """Private names of third parties that a class defines once more."""
    foreign = [base for base in class_.__mro__[1:] if base.__module__.partition(".")[0] != "synth2_lightning"]
    return set(private_members(class_)).intersection(*[set().union(*map(private_members, foreign))])


@pytest.mark.slow
def test_no_class_overrides_a_private_name_of_a_third_party() -> None:
    found = {
        f"{class_.__qualname__}.{name}"
        for class_ in package_classes()
        if inspect.isclass(class_)
        for name in overridden(class_)
    }
    assert found == set()
