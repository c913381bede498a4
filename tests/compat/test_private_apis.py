"""Uses of private names of third parties are in ``synth2_lightning.compat``."""

import ast
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import pytest

import synth2_lightning

SOURCE = Path(synth2_lightning.__file__).parent
DOCUMENTED = {"_asdict", "_fields", "_make", "_replace", "_exit"}  # of named tuples and of os
KINDS = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Name, ast.Attribute, ast.Call, ast.Import, ast.ImportFrom,
)  # fmt: skip
SETTINGS = {"MAX_IMAGE_PIXELS", "allow_tf32"}  # settings by the documentation of Pillow and torch


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_" and name not in DOCUMENTED


def parse(code: str) -> list[ast.AST]:
    """Return the nodes of a module that are of ``KINDS``."""
    return [node for node in ast.walk(ast.parse(code)) if isinstance(node, KINDS)]


def own_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that the package defines: functions, classes, variables, and attributes assigned to ``self``."""
    names: set[str] = set()
    for node in nodes:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                names.add(name)
    return names


def private_uses(nodes: list[ast.AST], own: set[str]) -> Iterator[tuple[int, str]]:
    """Yield lines and names of private attributes and imports, replaced attributes of third parties, and mocks.

    Inherited or overridden names are not found if the package defines the same name elsewhere.
    """
    imported: set[str] = set()  # from third parties; the hooks of the standard library are documented
    for node in nodes:
        match node:
            case ast.ImportFrom(module=module, names=names) if not (module or "").startswith("synth2_lightning"):
                parts = {*(module or "").split("."), *(alias.name for alias in names)}
                yield from ((node.lineno, part) for part in sorted(filter(is_private, parts)))
                if (module or "").split(".")[0] not in sys.stdlib_module_names:
                    imported |= {alias.asname or alias.name for alias in names}
                if module == "unittest":
                    yield node.lineno, "unittest"
            case ast.Import(names=names):
                parts = {part for alias in names for part in alias.name.split(".")}
                yield from ((node.lineno, part) for part in sorted(filter(is_private, parts)))
                imported |= {alias.asname or alias.name.split(".")[0] for alias in names} - sys.stdlib_module_names
                if "unittest" in parts:
                    yield node.lineno, "unittest"
            case ast.Attribute(attr=name) if is_private(name) and name not in own:
                yield node.lineno, name
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr" | "delattr"), args=[_, name, *_]):
                if isinstance(name, ast.Constant) and is_private(str(name.value)) and name.value not in own:
                    yield node.lineno, str(name.value)
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and not is_private(node.attr):
            root: ast.expr = node
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in imported and node.attr not in SETTINGS:
                yield node.lineno, node.attr


def test_private_apis_are_used_in_compat_only() -> None:
    paths = {str(path.relative_to(SOURCE)): path for path in sorted(SOURCE.rglob("*.py"))}
    modules = {name: parse(path.read_text()) for name, path in paths.items() if not name.startswith("compat/")}
    own = own_names(chain(*modules.values()))
    found = [f"{name}:{line} {use}" for name, nodes in modules.items() for line, use in private_uses(nodes, own)]
    assert found == [], "use a public API, or move it into synth2_lightning/compat"


OWN = own_names(parse("class Own:\n    def _method(self):\n        self._attribute = 0"))


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
    assert len(list(private_uses(parse(code), OWN))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "from synth2_lightning.types import _x",
        "from py3langid import __version__",
        "self._method(other._attribute)",
        "entry._replace(key=key)",
        "import torch\nweight = torch.zeros(1)\nweight.data = weight",
        "import sys\nsys.excepthook = print",
    ],
)
def test_own_names_and_public_ones_are_not_found(code: str) -> None:
    assert list(private_uses(parse(code), OWN)) == []
