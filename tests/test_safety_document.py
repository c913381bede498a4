import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs" / "safety.md").read_text("utf-8"))))


def test_every_guarantee_names_a_test() -> None:
    rows = [line for line in (ROOT / "docs" / "safety.md").read_text("utf-8").splitlines() if line.startswith("| ")]
    guarantees = [row for row in rows if not row.startswith("| guarantee |")]
    assert len(guarantees) > 30
    assert [row for row in guarantees if "`tests/" not in row.split(" | ")[-1]] == []


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_the_tests_of_guarantees_exist(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert name in functions or (not name and any(function.startswith("test_") for function in functions))
