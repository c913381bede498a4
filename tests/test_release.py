"""The files of a release name its version."""

from pathlib import Path

import yaml

import synth2_lightning

ROOT = Path(__file__).parents[1]


def test_the_citation_and_the_changelog_have_the_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == synth2_lightning.__version__
    assert f"\n## [{synth2_lightning.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
