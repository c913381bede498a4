import re
from pathlib import Path

import pytest

from synth2_lightning.cli import main
from synth2_lightning.cli.makers import find_maker
from synth2_lightning.cli.run_files import run_file_folder


@pytest.mark.parametrize(
    ("location", "command"),
    [
        ("runs/flickr8k/codebook", "synth2 fit --config experiments/flickr8k/codebook.yaml"),
        ("runs/flickr8k/writer", "synth2 fit --config experiments/flickr8k/writer.yaml"),
        ("shards/scenes", "synth2 predict --config tokenize.yaml"),
        ("captions/scenes/captions.parquet", "synth2 predict --config scenes/captions.yaml"),
        ("runs/mine/vocabulary", "synth2 vocabulary CAPTIONS --out runs/mine/vocabulary"),
    ],
)
def test_the_command_that_writes_a_location_is_found(location: str, command: str) -> None:
    assert find_maker(location, []) == f"It is written by `{command}`."


@pytest.mark.parametrize(
    ("location", "file"),
    [("runs/coco/generator", "experiments/coco/generator.yaml"), ("runs/writer", "model/writer.yaml")],
)
def test_overlays_and_parts_are_named_without_a_command(location: str, file: str) -> None:
    maker = f"It is written by `synth2 fit` with {file}, as its first lines describe."
    assert find_maker(location, []) == maker


def test_every_export_that_a_run_file_reads_is_written_by_one() -> None:
    texts = [path.read_text("utf-8") for path in run_file_folder().rglob("*.yaml")]
    read = {name for text in texts for name in re.findall(r"(?:codebook|generator|model): (runs/[\w./-]+)", text)}
    assert len(read) > 8
    assert [name for name in read if not find_maker(name, [])] == []


def test_run_files_beside_those_of_the_command_come_first(tmp_path: Path) -> None:
    own = tmp_path / "codebook.yaml"
    own.write_text("seed_everything: 0\ntrainer: t.yaml\nmodel: {export_to: runs/flickr8k/codebook}\ndata: d.yaml\n")
    (tmp_path / "real.yaml").touch()
    found = find_maker("runs/flickr8k/codebook", ["fit", f"--config={tmp_path / 'real.yaml'}"])
    assert found == f"It is written by `synth2 fit --config {own}`."


def test_an_export_of_another_kind_is_not_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    missing = "runs/flickr8k/codebook/generator.json"
    assert "codebook.yaml" in find_maker(missing, [])
    Path(missing).parent.mkdir(parents=True)
    assert find_maker(missing, []) == ""


def test_unknown_locations_are_not_explained() -> None:
    assert find_maker("/disk/photos", ["fit", "--config", "nowhere.yaml"]) == ""


def test_a_missing_codebook_names_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["predict", "--config", "experiments/flickr8k/tokenize.yaml", "--trainer.accelerator=cpu"])
    assert stop.value.code == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert "codebook is not at 'runs/flickr8k/codebook'" in shown
    assert "It is written by `synth2 fit --config experiments/flickr8k/codebook.yaml`." in shown
