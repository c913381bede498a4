import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from synth2_lightning.sources.karpathy import KarpathySource

RECORDS: list[dict[str, Any]] = [
    {
        "filepath": "val2014",
        "filename": "1.png",
        "cocoid": 1,
        "split": "restval",
        "sentences": [{"raw": "A cat."}, {"raw": "One cat."}],
    },
    {"filename": "2.png", "split": "train", "sentences": [{"raw": "A dog."}]},
    {"filename": "3.png", "split": "test", "sentences": [{"raw": "A bird."}]},
]


def make(folder: Path, records: list[dict[str, Any]], splits: list[str]) -> KarpathySource:
    (folder / "split.json").write_text(json.dumps({"images": records}))
    return KarpathySource(str(folder / "split.json"), str(folder), splits)


def test_splits_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "val2014").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "val2014" / "1.png")
    source = make(tmp_path, RECORDS, ["train", "restval"])
    source.load()

    assert [(source.key(index), source.captions(index)) for index in range(len(source))] == [
        ("1", ("A cat.", "One cat.")),
        ("2.png", ("A dog.",)),
    ]
    assert source.image(0).size == (3, 2)


@pytest.mark.parametrize(
    ("splits", "is_evaluation"), [(["train", "restval"], False), (["test"], True), (["val"], True)]
)
def test_evaluation_splits_are_known(tmp_path: Path, splits: list[str], is_evaluation: bool) -> None:
    assert make(tmp_path, RECORDS, splits).is_evaluation is is_evaluation


def test_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'val'.*'restval'.*'test'.*'train'"):
        make(tmp_path, RECORDS, ["train", "val"]).load()


def test_no_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'coco'.*split"):
        make(tmp_path, RECORDS, [])


def test_record_without_sentences_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"objects.*'sentences'.*Karpathy"):
        make(tmp_path, [{"filename": "1.png", "split": "train"}], ["train"]).load()
