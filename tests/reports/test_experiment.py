import re
from pathlib import Path

import pytest

from synth2_lightning.cli import main


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


def test_the_commands_are_printed_in_order(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", "data", "--out", "mine", "--synthetic"])
    commands = re.findall(r"synth2 (\w+) --config mine/(\w+)\.yaml", capsys.readouterr().out)
    assert commands == [
        ("fit", "codebook"), ("predict", "tokenize"), ("fit", "generator"), ("predict", "synthesize"), ("fit", "real"),
        ("fit", "mixed"),
    ]  # fmt: skip
    assert all((folder / f"{name}.yaml").exists() for _, name in commands)


def test_a_name_that_cannot_be_part_of_paths_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["init", "data", "--out", "my photos", "--synthetic"])
    assert "is called 'my photos'; expected a name of letters" in capsys.readouterr().err
    assert folder.exists()
