from pathlib import Path
from unittest.mock import Mock

import huggingface_hub
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from synth2_lightning.export.hub import locate_export, push_export


def test_local_files_take_precedence_over_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert locate_export("owner/name") == Path("owner/name")
    with pytest.raises(FileNotFoundError, match=r"captioner.*'\./other'"):
        locate_export("./other")
    with pytest.raises(FileNotFoundError, match=r"captioner.*'captioner'"):
        locate_export("captioner")


def test_a_hub_name_is_downloaded_without_anything_that_could_be_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = Mock(return_value=str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert locate_export("owner/name", "v1") == tmp_path
    patterns = ["config.json", "model.safetensors", "README.md", "files/**"]
    download.assert_called_once_with("owner/name", revision="v1", allow_patterns=patterns)


def test_offline_the_remedy_is_named() -> None:
    with pytest.raises(OSError, match=r"'nobody/nothing'.*folder.*network"):
        locate_export("nobody/nothing")


def test_the_repository_is_made_and_the_folder_uploaded(tmp_path: Path) -> None:
    api = Mock(spec=HfApi)
    api.upload_folder.return_value = "https://hub/owner/name/commit/1"
    assert push_export(tmp_path, "owner/name", api) == "https://hub/owner/name/commit/1"
    api.create_repo.assert_called_once_with("owner/name", repo_type="model", exist_ok=True)
    assert api.upload_folder.call_args.kwargs == {
        "repo_id": "owner/name",
        "folder_path": tmp_path,
        "repo_type": "model",
        "commit_message": "Upload a captioner",
    }


def test_a_refusal_and_a_wrong_name_are_reported(tmp_path: Path) -> None:
    api = Mock(spec=HfApi)
    api.create_repo.side_effect = HfHubHTTPError("401 Unauthorized", response=Mock(headers={}))
    with pytest.raises(OSError, match=r"'owner/name'.*401.*hf auth login"):
        push_export(tmp_path, "owner/name", api)
    with pytest.raises(ValueError, match=r"'name'.*OWNER/NAME"):
        push_export(tmp_path, "name", api)


def test_offline_nothing_is_uploaded(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"upload.*'owner/name'"):
        push_export(tmp_path, "owner/name")
