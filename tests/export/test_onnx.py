from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from synth2_lightning.decoders.causal import CausalDecoder
from synth2_lightning.export import onnx
from synth2_lightning.export.exported import load_exported
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler
from synth2_lightning.types import Pixels

ExportTiny = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(export_tiny: ExportTiny) -> Path:
    return export_tiny("cross_attention.CrossAttentionDecoder", onnx=True, cross_attn_every_n_layers=1, num_heads=2)


def _run(file: Path, **inputs: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return torch.from_numpy(np.asarray(output))


@pytest.mark.slow
def test_graphs_compute_what_torch_computes(folder: Path) -> None:
    module = load_exported(folder)
    assert isinstance(module.decoder, CausalDecoder)
    pixels = (torch.arange(3 * 64 * 64) * 7).remainder(256).byte().view(1, 3, 64, 64)
    with torch.no_grad():
        visual = module.encode_images(Pixels(pixels))
        torch.testing.assert_close(
            _run(folder / "onnx" / onnx.VISUAL_TOKENS, pixel_values=pixels),
            visual,
            rtol=0,
            atol=1e-4 * float(visual.abs().max()),
        )
        for length in (1, 7):
            ids = torch.arange(length)[None]
            expected = module.decoder.logits(visual, ids)
            actual = _run(folder / "onnx" / onnx.LOGITS, visual_tokens=visual, input_ids=ids)
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.slow
def test_graphs_with_other_outputs_are_refused(folder: Path) -> None:
    visual, ids = torch.ones(1, 4, 16), torch.ones(1, 2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"logits\.onnx.*differ"):
        onnx._compare(folder / "onnx" / onnx.LOGITS, {"visual_tokens": visual, "input_ids": ids}, torch.ones(1, 2, 72))


def test_captioners_without_tokens_are_refused(tmp_path: Path) -> None:
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    with pytest.raises(ValueError, match=r"TinyDecoder.*PrefixDecoder"):
        onnx.export_onnx(module, tmp_path)


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth2_lightning.io.extras.find_spec", lambda name: None)
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    with pytest.raises(ModuleNotFoundError, match=r"onnxscript.*`onnx`"):
        onnx.export_onnx(module, tmp_path)
