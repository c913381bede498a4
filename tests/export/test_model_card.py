import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from synth2_lightning.export.model_card import write_card
from synth2_lightning.export.runs import DataRecord

CONFIG: dict[str, Any] = {
    "model": {"class_path": "a.Captioner", "init_args": {"image_encoder": {"class_path": "a.Encoder"}}},
    "frozen_parts": {"image_encoder": "image_encoder:12345678"},
    "codebooks": {"image_encoder": "vqgan-512:12345678"},
    "trained_weights": 1234,
    "step": 600,
    "versions": {"torch": "2.15.0"},
}


def test_the_hub_reads_the_card() -> None:
    card = ModelCard(write_card("mine", CONFIG, [], None, "apache-2.0")).data.to_dict()  # type: ignore[no-untyped-call]
    assert (card["license"], card["pipeline_tag"]) == ("apache-2.0", "image-text-to-text")
    assert card["tags"] == ["image-captioning", "synth2-lightning", "vision-language"]


def test_unknown_facts_are_stated() -> None:
    text = write_card("mine", CONFIG, [], None, None)
    assert len(re.findall(r"^#.*\n+None\b", text, re.MULTILINE)) == 1  # the scores
    assert re.search(r"^#.*\n+Not known\.", text, re.MULTILINE)
    assert "license" not in ModelCard(text).data.to_dict()  # type: ignore[no-untyped-call]


def test_missing_shards_and_local_paths_are_shortened() -> None:
    arguments = {"shards": "/home/me/shards", "sources": [{"path": "/home/me/a.json"}]}
    data = DataRecord([("", "Data", arguments)], {"/home/me/shards": "is lost"}, None)
    text = write_card("mine", CONFIG, [{"metric": "SPICE", "score": 0.2, "split": "test"}], data, None)
    assert "| data | Data | shards=…/shards, sources=[{'path': '…/a.json'}] |" in text
    assert re.search(r"…/shards.* is lost", text)
    assert "| SPICE | 0.2000 |  | test |  |  | none |  |" in text
    assert "/home" not in text


@pytest.mark.parametrize("module", ["captioning.VisionLanguageModule", "question_answering.QuestionAnsweringModule"])
def test_the_code_of_the_card_runs(
    export_tiny: Callable[..., Path], module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = export_tiny(module=module)
    monkeypatch.chdir(folder.parent)
    Image.new("RGB", (48, 32)).save("image.jpg")
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    exec(code, {})
    assert re.fullmatch(r"\['.*'\]\n", capsys.readouterr().out)
