import json
from pathlib import Path

import pytest
import torch
import yaml

from synth2_lightning.export.runs import Run, find_run, read_cards, read_data


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    torch.save({"global_step": 3}, tmp_path / "checkpoints" / "last.ckpt")
    (tmp_path / "config.yaml").write_text("data: {}")
    return tmp_path


def test_a_run_and_its_checkpoint_are_found_from_either(run: Path) -> None:
    last = run / "checkpoints" / "last.ckpt"
    assert find_run(run) == find_run(last) == Run(last, run)
    torch.save({"global_step": 2}, run / "checkpoints" / "best-step=2-cider=0.1.ckpt")
    assert find_run(run).checkpoint.name == "best-step=2-cider=0.1.ckpt"


def test_a_checkpoint_needs_no_run_and_a_run_must_have_one(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "some.ckpt").touch()
    assert find_run(tmp_path / "deep" / "er" / "some.ckpt").folder is None
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        find_run(tmp_path)


def test_weights_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"model\.safetensors has weights alone.*folder"):
        find_run(tmp_path / "model.safetensors")


def test_cards_of_the_step_and_those_that_are_named_are_read(run: Path) -> None:
    for step in (1, 2):
        (run / "cider" / f"test-step={step}").mkdir(parents=True)
        card = {"metric": "CIDEr-D", "score": step, "split": "test"}
        (run / "cider" / f"test-step={step}" / "protocol.json").write_text(json.dumps(card))
    cards = read_cards(run, 2, [run / "cider" / "test-step=1"])
    assert [card["score"] for card in cards] == [2, 1]
    assert read_cards(None, 2) == []
    (run / "cider" / "test-step=2" / "protocol.json").write_text('{"metric": "CIDEr-D"}')
    with pytest.raises(ValueError, match=r"protocol card.*KeyError\('score'\)"):
        read_cards(run, 2)


def test_data_is_read_off_the_run_file(run: Path) -> None:
    train = {"class_path": "a.Train", "init_args": {"limit": None, "name": "coco"}}
    data = {"class_path": "a.Data", "init_args": {"train": train, "shards": "nothing/there", "val": None}}
    (run / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    record = read_data(run)
    assert record is not None
    assert record.components == [("", "Data", {"shards": "nothing/there"}), ("train", "Train", {"name": "coco"})]
    assert record.manifests.keys() == {"nothing/there"}
    assert "MissingLocationError" in str(record.manifests["nothing/there"])
    assert record.synthetic_fraction is None
    assert read_data(None) is None
    (run / "config.yaml").write_text("model: {}")
    with pytest.raises(ValueError, match=r"config\.yaml.*KeyError\('data'\)"):
        read_data(run)
