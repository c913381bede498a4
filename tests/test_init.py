import ast
import subprocess
import sys
from pathlib import Path

import pytest

import synth2_lightning


@pytest.mark.parametrize("name", synth2_lightning.__all__)
def test_every_public_name_is_that_of_its_module(name: str) -> None:
    tree = ast.parse(Path(synth2_lightning.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    (place, original) = next(
        (node.module, alias.name) for node in imports for alias in node.names if name == (alias.asname or alias.name)
    )
    value = getattr(synth2_lightning, name)
    assert (value.__module__, value.__name__) == (place, original)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, synth2_lightning; print({'torch', 'lightning', 'numpy'} & set(sys.modules))"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == "set()"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"synth2_lightning.*Captoiner"):
        getattr(synth2_lightning, "Captoiner")  # noqa: B009 - mypy reports an unknown attribute
    assert set(synth2_lightning.__all__) <= set(dir(synth2_lightning))
