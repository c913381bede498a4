import json
import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

from synth2_lightning.cli import main
from synth2_lightning.sources.table import TableSource


def test_a_run_file_a_split_and_a_grid_are_written(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", str(photos), "--out", "mine"])
    printed = capsys.readouterr().out
    assert "train: 18 photos, 36 captions" in printed
    assert "val: 2 photos, 4 captions" in printed
    assert "synth2 fit --config photos.yaml --config mine/photos.yaml" in printed
    settings = yaml.safe_load(Path("mine/photos.yaml").read_text())["data"]["init_args"]
    assert settings["batch_size"] == 18
    keys: list[set[str]] = []
    for split in ("train", "val"):
        assert settings[split]["class_path"] == "synth2_lightning.sources.table.TableSource"
        source = TableSource(**settings[split]["init_args"])
        source.load()
        keys.append({source.key(index) for index in range(len(source))})
        assert source.image(0).size == (30, 20)
    assert not keys[0] & keys[1]
    with Image.open("mine/images.png") as grid:
        assert grid.size == (6 * 160, 3 * 160)


def test_an_earlier_run_file_is_kept(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    Path("mine/photos.yaml").write_text("edited")
    with pytest.raises(SystemExit):
        main(["init", str(photos), "--out", "mine"])
    assert "mine/photos.yaml exists" in capsys.readouterr().err
    assert Path("mine/photos.yaml").read_text() == "edited"


def test_the_included_run_file_is_not_hidden(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["init", str(photos), "--out", "."])
    assert "expected another one (--out), because photos.yaml in it would replace" in capsys.readouterr().err
    assert not Path("photos.yaml").exists()


def test_photos_without_captions_and_unused_files_are_named(
    photos: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.csv", "b.csv", "test.csv"):
        rows = "".join(f"{number:02}.png,a dog\n" for number in range(4))
        (photos / name).write_text(f"file,caption\n{rows}04.png, \n")
    main(["init", str(photos), "--out", "mine"])
    printed = capsys.readouterr().out
    assert re.search(r"not used: .*b\.csv\nnot used: .*test\.csv\n", printed)
    assert "1 empty captions" in caplog.text


@pytest.mark.usefixtures("photos")
def test_a_single_photo_cannot_be_split(capsys: pytest.CaptureFixture[str]) -> None:
    content = {"images": [{"id": 1, "file_name": "00.png"}], "annotations": [{"image_id": 1, "caption": "a dog"}]}
    Path("data/one.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit):
        main(["init", "data/one.json"])
    assert "1 photos" in capsys.readouterr().err
