import json
import re
import sys
from pathlib import Path

import pytest

import report


def test_a_saved_result_has_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(sys, "argv", ["benchmarks/scenes_gain.py", "--seeds", "0", "1"])
    report.save("scenes_gain", None, gain=0.17)

    saved = json.loads((tmp_path / "results" / "scenes_gain.json").read_text())
    printed = json.loads(capsys.readouterr().out)
    assert saved["command"] == "python benchmarks/scenes_gain.py --seeds 0 1"
    assert {name: saved[name] for name in printed} == printed
    assert saved["gain"] == 0.17
    assert saved["versions"]["torch"]
    assert saved["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", saved["commit"])


def test_outside_of_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_ROOT", tmp_path)
    assert report.commit() is None
