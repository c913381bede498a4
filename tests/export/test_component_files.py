from pathlib import Path

import pytest

from synth2_lightning.export.component_files import copy_files, find_files


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "tokenizer.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_of_this_machine_are_copied_and_found_again_elsewhere(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    description = {
        "class_path": "a.B",
        "init_args": {"tokenizer": str(here / "words"), "list": ["./words/tokenizer.json"], "bare": "words"},
    }
    copied = copy_files(description, {"words"}, here / "export")
    assert copied["init_args"] == {
        "tokenizer": "here://files/tokenizer/words",
        "list": ["here://files/list.0/tokenizer.json"],
        "bare": "here://files/bare/words",
    }
    (here / "export").rename(here / "moved")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    found = find_files(copied, here / "moved")["init_args"]
    assert (Path(found["tokenizer"]) / "tokenizer.json").read_text() == "{}"
    assert Path(found["list"][0]).is_file()


def test_what_is_the_same_everywhere_stays(here: Path) -> None:
    (here / "owner").mkdir()
    description = {
        "hub": "owner/name",
        "package": "package://synth2_lightning/py.typed",
        "fetched": "weights://efficientnet-lite0",
        "name": "words",  # also the name of a folder, which no component read
        "prompt": "x" * 5000 + "/",
        "number": 3,
        "nothing": None,
    }
    assert copy_files(description, {"owner/name"}, here / "export") == description
    assert not (here / "export").exists()


def test_pickles_are_refused_where_nothing_else_holds_the_tensors(here: Path) -> None:
    (here / "words" / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match=r"pytorch_model\.bin.*pickle.*\.safetensors"):
        copy_files({"model": "./words"}, (), here / "export")
    (here / "words" / "model.safetensors").touch()
    copy_files({"model": "./words"}, (), here / "export")
    kept = {path.name for path in (here / "export" / "files" / "model" / "words").iterdir()}
    assert kept == {"tokenizer.json", "model.safetensors"}
    (here / "net.pth").touch()
    with pytest.raises(ValueError, match=r"net\.pth.*pickle"):
        copy_files({"weights": "./net.pth"}, (), here / "export")


def test_a_pickle_a_path_outside_and_a_missing_file_are_not_read(here: Path) -> None:
    (here / "model.pt").touch()
    with pytest.raises(ValueError, match=r"model\.pt\b.*pickles?\b.*safetensors"):
        find_files(["here://model.pt"], here)
    with pytest.raises(ValueError, match="'here:///etc/passwd'"):
        find_files({"a": "here:///etc/passwd"}, here)
    with pytest.raises(FileNotFoundError, match=r"files/a/words.*folder"):
        find_files({"a": "here://files/a/words"}, here)


def test_what_was_fetched_from_an_address_is_copied(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH2_CACHE", str(here / "cache"))
    address = (here / "words").as_uri()
    copied = copy_files({"tokenizer": address, "other": "s3://bucket/nobody-read-it"}, {address}, here / "export")
    assert copied == {"tokenizer": "here://files/tokenizer/words", "other": "s3://bucket/nobody-read-it"}
    assert (here / "export" / "files" / "tokenizer" / "words" / "tokenizer.json").read_text() == "{}"


def test_a_copy_of_a_link_has_the_name_of_the_link(here: Path) -> None:
    (here / "blob").write_bytes(b"weights")
    (here / "net.safetensors").symlink_to("blob")  # as in the cache of the Hub client
    link = str(here / "net.safetensors")
    assert copy_files({"weights": link}, {link}, here / "export") == {"weights": "here://files/weights/net.safetensors"}
    assert (here / "export" / "files" / "weights" / "net.safetensors").read_bytes() == b"weights"
    (here / "net.pth").symlink_to("blob")
    with pytest.raises(ValueError, match=r"net\.pth"):
        copy_files({"weights": str(here / "net.pth")}, {str(here / "net.pth")}, here / "export")


@pytest.mark.parametrize("address", ["s3://bucket/words", "https://host/words.json"])
def test_an_address_in_a_model_is_refused(here: Path, address: str) -> None:
    with pytest.raises(ValueError, match=rf"\bmodel\b.*'{address}'.*inside its folder"):
        find_files({"init_args": {"tokenizer": address}}, here)
    same = {"tokenizer": "weights://smollm2-135m-instruct", "prompt": "see http://a.b for more"}
    assert find_files(same, here) == same
