import os
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from synth2_lightning.metrics import java
from synth2_lightning.metrics.corpus import CorpusResult
from synth2_lightning.metrics.corpus_metrics import Meteor, Spice
from synth2_lightning.metrics.java import check_java, meteor, spice

REFERENCES = {"2": ["a red dog runs", "a dog"], "1": ["two blue squares"]}
HYPOTHESES = {"2": "A red dog runs.", "1": "two green boxes"}
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="METEOR needs java on the PATH")


@needs_java
@pytest.mark.slow
def test_meteor_is_independent_of_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")
    result = meteor(HYPOTHESES, REFERENCES)
    assert result.scores["2"] == pytest.approx(1.0)
    assert 0 < result.scores["1"] < 0.5
    assert os.environ["JAVA_TOOL_OPTIONS"] == "-Duser.language=de -Duser.country=DE"
    metric = Meteor()
    metric.update(["1", "2"], [HYPOTHESES["1"], HYPOTHESES["2"]], [REFERENCES["1"], REFERENCES["2"]])
    assert metric.compute().item() == pytest.approx(result.score)


def test_missing_java_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(FileNotFoundError, match=r"METEOR.*java.*PATH"):
        meteor(HYPOTHESES, REFERENCES)


def test_missing_files_are_named_and_not_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/java")
    monkeypatch.setattr(java, "package_folder", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"SPICE.*spice/spice-1\.0\.jar"):
        spice(HYPOTHESES, REFERENCES)
    check_java("anything", [])


def test_a_failed_java_process_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "check_java", lambda *_: None)

    class Broken:
        lock: Any = None
        meteor_p = Mock()

        def compute_score(self, *_: Any) -> Any:
            raise ValueError("could not convert string to float: ''")

    monkeypatch.setattr("pycocoevalcap.meteor.meteor.Meteor", Broken)
    with pytest.raises(OSError, match=r"METEOR.*Java"):
        meteor(HYPOTHESES, REFERENCES)


def test_spice_scores_are_assigned_to_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "check_java", lambda *_: None)

    class Parsed:
        def compute_score(self, references: dict[str, list[str]], hypotheses: dict[str, list[str]]) -> Any:
            return 0.3, [{"All": {"f": len(references[key]) / 10}} for key in sorted(hypotheses)]

    monkeypatch.setattr("pycocoevalcap.spice.spice.Spice", Parsed)
    assert spice(HYPOTHESES, REFERENCES) == CorpusResult(0.3, {"2": 0.2, "1": 0.1})
    metric = Spice()
    metric.update(["1"], ["a dog"], [["a dog"]])
    assert metric.compute().item() == pytest.approx(0.3)


def test_a_failure_of_spice_names_the_expected_java(monkeypatch: pytest.MonkeyPatch) -> None:
    from subprocess import CalledProcessError

    monkeypatch.setattr(java, "check_java", lambda *_: None)

    class Broken:
        def compute_score(self, *_: Any) -> Any:
            raise CalledProcessError(1, ["java"])

    monkeypatch.setattr("pycocoevalcap.spice.spice.Spice", Broken)
    with pytest.raises(OSError, match=r"SPICE.*exit code 1.*Java 8"):
        spice(HYPOTHESES, REFERENCES)
