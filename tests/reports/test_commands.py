import json
import re
from pathlib import Path

import pytest

from synth2_lightning.cli import main
from synth2_lightning.testing import TinyTextEncoder


@pytest.fixture
def animals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("synth2_lightning.encoders.text.PretrainedTextEncoder", lambda *_, **__: TinyTextEncoder())
    rows = [f"a {name} sees {number} birds,{name}" for name in ("fox", "dog") for number in range(4)]
    (tmp_path / "animals.csv").write_text("\n".join(["caption,class_name", *rows]))
    return tmp_path / "animals.csv"


def test_report_writes_a_page_and_prints_its_measures(animals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = animals.parent / "out"
    main(["report", f"zoo [/x]={animals}", "--out", str(out), "--num_clusters", "2", "--sample", "6", "--seed", "1"])
    assert {path.name for path in out.iterdir()} == {"report.html", "report.png", "report.json"}
    content = json.loads((out / "report.json").read_text())
    assert (content["sample_size"], content["num_clusters"], content["seed"]) == (6, 2, 1)
    printed = capsys.readouterr().out
    assert "zoo [/x]" in printed
    assert "vocabulary" in printed
    assert "overlap with evaluation set" not in printed


@pytest.mark.parametrize(("by", "num_groups"), [("class", 2), ("clusters", 3)])
def test_select_writes_a_caption_set(animals: Path, by: str, num_groups: int) -> None:
    out = animals.parent / "out"
    main(["select", str(animals), "--out", str(out), "--num", "4", "--by", by, "--num_clusters", "3"])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["num_kept"] == 4
    assert len(manifest["groups"]) == num_groups
    assert (out / "captions.parquet").is_file()


def test_errors_of_select_are_shown_without_a_traceback(animals: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["select", str(animals), "--out", str(animals.parent / "out"), "--num", "99", "--by", "class"])
    assert stop.value.code == 1
    assert re.search(r"error: 99 captions\b.*\b2 groups\b.*\b8\b", capsys.readouterr().err)
