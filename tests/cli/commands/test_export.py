from pathlib import Path
from unittest.mock import Mock

import pytest

from synth2_lightning.cli import main


def test_export_writes_and_pushes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import synth2_lightning.export.exported
    import synth2_lightning.export.push

    export, push = Mock(return_value=tmp_path), Mock(return_value="https://hub/me/mine")
    monkeypatch.setattr(synth2_lightning.export.exported, "export_captioner", export)
    monkeypatch.setattr(synth2_lightning.export.push, "push_folder", push)
    run = tmp_path / "version_0"
    run.mkdir()
    words = ["export", str(run), "--out", "mine", "--license", "mit", "--card", "a.json", "--card", "b"]
    main([*words, "--onnx", "--push_to", "me/mine"])
    export.assert_called_once_with(str(run), Path("mine"), "mit", [Path("a.json"), Path("b")], [], True)
    push.assert_called_once_with(tmp_path, "me/mine")
    assert capsys.readouterr().out == f"Exported the captioner to {tmp_path}\nUploaded it to https://hub/me/mine\n"


def test_export_to_a_wrong_name_is_refused_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", "runs/version_0", "--out", "mine", "--push_to", "mine"])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert "'mine'" in error
    assert "OWNER/NAME" in error
