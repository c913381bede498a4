import re
import shlex
from pathlib import Path

import pytest

from synth2_lightning.cli import main
from synth2_lightning.cli.run_files import run_file_folder


@pytest.fixture
def folder(photos: Path) -> Path:
    main(["init", str(photos), "--out", "some photos/mine", "--synthetic"])
    return Path("some photos/mine")


def test_run_files_have_the_names_of_the_folder(folder: Path) -> None:
    files = {path.relative_to(folder): path.read_text("utf-8") for path in folder.rglob("*.yaml")}
    assert len(files) > 20
    assert not [path for path, text in files.items() if re.search("flickr8k|limit: [0-9]|skip:", text)]
    assert "export_to: runs/mine/codebook" in files[Path("codebook.yaml")]
    assert 'table: "some photos/mine/captions.csv"' in files[Path("synthesize.yaml")]
    assert files[Path("data/train.yaml")] == files[Path("data/real_photos.yaml")] != files[Path("data/val.yaml")]


def test_comments_name_run_files_that_exist(folder: Path) -> None:
    named = [
        (path.parent, name)
        for path in folder.rglob("*.yaml")
        for comment in re.findall("#.*", path.read_text("utf-8"))
        for name in re.findall(r"[\w./-]+\.yaml", re.sub("'some photos/mine'?/", "", comment))
    ]
    assert len(named) > 20
    places = (Path(), run_file_folder())
    assert [each for each in named if not any((place / each[1]).exists() for place in (each[0], *places))] == []


def test_the_commands_are_printed_in_order(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", "data", "--out", "mine", "--synthetic"])
    commands = re.findall(r"synth2 (\w+) --config mine/(\w+)\.yaml", capsys.readouterr().out)
    assert commands == [
        ("fit", "codebook"), ("predict", "tokenize"), ("fit", "generator"), ("predict", "synthesize"), ("fit", "real"),
        ("fit", "mixed"),
    ]  # fmt: skip
    assert all((folder / f"{name}.yaml").exists() for _, name in commands)


def test_a_folder_with_a_space_is_quoted_in_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", "data", "--out", "some photos/others", "--synthetic"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "--config" in line]
    assert len(lines) == 7
    assert all(Path(shlex.split(line, comments=True)[-1]).is_file() for line in lines)
    assert "--config 'some photos/mine'/codebook.yaml" in (folder / "codebook.yaml").read_text("utf-8")


def test_a_name_that_cannot_be_part_of_paths_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["init", "data", "--out", "my photos", "--synthetic"])
    assert "is called 'my photos'; expected a name of letters" in capsys.readouterr().err
    assert folder.exists()
