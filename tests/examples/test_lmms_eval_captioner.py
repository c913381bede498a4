"""The wrapper for lmms-eval 0.7.3 with a stand-in for the parts that it uses, so that lmms-eval is not needed."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from synth2_lightning.export.captioner import load

SCRIPT = Path(__file__).parents[2] / "examples" / "lmms_eval_captioner.py"


class _Lmms:
    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}
        self.partial: list[Any] = []
        self.cache_hook = SimpleNamespace(add_partial=lambda *args: self.partial.append(args))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    modules = {name: ModuleType(name) for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model")}
    modules["lmms_eval.api.model"].lmms = _Lmms  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("lmms_eval_captioner", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def _request(doc_id: int) -> SimpleNamespace:
    def doc_to_visual(doc: dict[str, list[Any]]) -> list[Any]:
        return doc["images"]

    return SimpleNamespace(args=("Describe it.", {"max_new_tokens": 64}, doc_to_visual, doc_id, "coco", "val"))


def test_each_request_gets_the_caption_of_its_image(script: ModuleType, export_tiny: Callable[..., Path]) -> None:
    folder = export_tiny()
    images = [Image.linear_gradient("L"), Image.new("RGB", (200, 80), "red"), Image.new("RGB", (33, 40), (0, 90, 255))]
    model = script.Synth2Captioner(str(folder), batch_size="2", max_batch_size=None, device="cpu", num_beams=2)
    model.task_dict["coco"] = {"val": [{"images": [image]} for image in images] + [{"images": images}]}
    order = [2, 0, 1]
    expected = load(folder, "cpu", num_beams=2).caption([images[index] for index in order])
    assert len(set(expected)) > 1
    assert model.generate_until([_request(index) for index in order]) == expected
    assert [result for _, _, result in model.partial] == expected
    with pytest.raises(ValueError, match=r"request 3 of coco has 3 images"):
        model.generate_until([_request(3)])
    for unsupported in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(NotImplementedError, match=r"generate_until"):
            unsupported([])
    with pytest.raises(ValueError, match=r"num_beam\b.*num_beams"):
        script.Synth2Captioner(str(folder), num_beam=2)
