"""The files of a release name its version, and its workflows run only code that cannot change."""

import re
from pathlib import Path

import yaml

import synth2_lightning

ROOT = Path(__file__).parents[1]


def test_the_citation_and_the_changelog_have_the_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == synth2_lightning.__version__
    assert f"\n## [{synth2_lightning.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_actions_of_workflows_are_pinned_to_commits() -> None:
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    uses = [line for file in files for line in file.read_text("utf-8").splitlines() if "uses:" in line]
    assert len(uses) >= 10
    assert [line for line in uses if not re.search(r"@[0-9a-f]{40} # v\d", line)] == []
