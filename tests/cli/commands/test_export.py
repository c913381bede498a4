from pathlib import Path
from unittest.mock import Mock

import pytest

from synth2_lightning.cli import main


def test_export_passes_its_arguments_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import synth2_lightning.export.exported

    export = Mock(return_value=tmp_path)
    monkeypatch.setattr(synth2_lightning.export.exported, "export_captioner", export)
    run = tmp_path / "version_0"
    run.mkdir()
    main(["export", str(run), "--out", "mine", "--license", "mit", "--card", "a.json", "--card", "b", "--onnx"])
    export.assert_called_once_with(str(run), Path("mine"), "mit", [Path("a.json"), Path("b")], [], True)
    assert capsys.readouterr().out == f"Exported the captioner to {tmp_path}\n"


def test_export_of_a_missing_run_is_refused_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", "runs/version_9", "--out", "mine"])
    assert stop.value.code == 1
    assert "run or checkpoint is not at 'runs/version_9'" in capsys.readouterr().err
