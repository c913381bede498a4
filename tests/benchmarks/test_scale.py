import json
import sys
from pathlib import Path
from typing import Any

import pytest

import scale


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str, object]:
    arguments = ["scale.py", "--quick", "--ranks", "1", "8", "--pairs", "300"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(scale, "start_process", scale.measure_start)  # a new process takes seconds to import
    with pytest.raises(SystemExit) as end:
        scale.main()
    out, err = capsys.readouterr()
    return json.loads(out.splitlines()[-1]), err, end.value.code


@pytest.fixture(autouse=True)
def restored_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH2_CACHE", str(tmp_path))  # the benchmark sets another one
    monkeypatch.setattr(scale, "PER_TAR", 100)


def test_it_measures_starts_and_steps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("MAX_GROWTH", "MAX_SHUFFLE_MS"):  # a busy machine exceeds the limits with few repetitions and pairs
        monkeypatch.setattr(scale, name, 100.0)
    result, err, code = run(monkeypatch, capsys)
    assert (code, result["failures"], err) == (0, [], "")
    assert set(result["steps"]) == {"1", "8"}
    assert all(value > 0 for step in result["steps"].values() for value in step.values())
    (start,), (resume,) = result["starts"], result["resumes"]
    assert start["pairs"] == resume["pairs"] == 300
    assert set(start["stages"]) == {"index", "sampler", "read_batch", "checksum"}
    assert start["checkpoint_bytes"] < 100
    assert resume["is_equal"]
    assert result["former_start_seconds"] > 0


def test_it_fails_above_its_limits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("MAX_GROWTH", "MAX_SHUFFLE_MS", "MAX_SECONDS", "MAX_MIB"):
        monkeypatch.setattr(scale, name, -1.0)
    result, err, code = run(monkeypatch, capsys)
    assert code == 1
    assert [failure.split()[1] for failure in result["failures"]] == ["step", "takes", "start", "start"]
    assert "failed: a step costs" in err
