"""The lower bounds in pyproject.toml are the oldest versions that the tests pass with."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OF_USERS = {
    name: lines
    for name, lines in PROJECT["optional-dependencies"].items()
    if name not in {"all", "docs", "test", "dev"}
}
REQUIREMENTS = [Requirement(line) for lines in (PROJECT["dependencies"], *OF_USERS.values()) for line in lines]


def pinned(name: str) -> dict[str, Version]:
    lines = (ROOT / "constraints" / name).read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_lower_bounds_are_the_oldest_versions(requirement: Requirement) -> None:
    (bound,) = requirement.specifier
    name = canonicalize_name(requirement.name)
    assert bound.operator == ">="
    assert pinned("oldest.txt")[name] == Version(bound.version) <= pinned("newest.txt")[name]
