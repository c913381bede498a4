"""ONNX graphs of captioners: of the visual tokens of an image, and of the logits of the next token."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.export import Dim

from synth2_lightning.decoders.causal import CausalDecoder
from synth2_lightning.export.processing import find_token_decoder
from synth2_lightning.io.extras import require_extra
from synth2_lightning.io.messages import one_line
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.types import Pixels

VISUAL_TOKENS, LOGITS = "visual_tokens.onnx", "logits.onnx"
_OPSET = 20
_TOLERANCE = 1e-3


@torch.no_grad()
def export_onnx(module: VisionLanguageModule, folder: Path) -> None:
    """Write the graphs of a captioner, and compare their outputs on onnxruntime with those of torch.

    ``visual_tokens.onnx``, the image encoder and the resampler, maps ``pixel_values`` ``(1, 3, height, width)`` of
    uint8 to ``visual_tokens`` ``(1, latents, width)``. ``logits.onnx``, the decoder without a key/value cache, maps
    these and ``input_ids`` ``(1, length)`` of int64 to ``logits`` ``(1, length, vocabulary)`` of the token after each
    given one.

    Args:
        module: A captioner with its weights, on the CPU, in ``eval()``.
        folder: Output folder; created if it does not exist.

    Raises:
        ModuleNotFoundError: If the extra ``onnx`` is not installed.
        ValueError: If the texts are not tokens of a ``CausalDecoder``, torch cannot convert a component, or outputs
            differ.
    """
    require_extra("onnxscript", "onnx")
    require_extra("onnxruntime", "onnx")
    decoder = find_token_decoder(module)
    if decoder is None:
        raise ValueError(
            f"{type(module).__name__} with a {type(module.decoder).__name__} has no ONNX graph; expected captions that "
            "are tokens of a PrefixDecoder or CrossAttentionDecoder. Export without ONNX."
        )
    folder.mkdir(parents=True, exist_ok=True)
    size = module.image_encoder.image_size
    pixels = torch.randint(256, (1, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    visual, ids = module.encode_images(Pixels(pixels)), torch.arange(3)[None]
    _convert(_VisualTokens(module), {"pixel_values": pixels}, "visual_tokens", {}, folder / VISUAL_TOKENS)
    length: dict[str, dict[int, Any]] = {"visual_tokens": {}, "input_ids": {1: Dim.DYNAMIC}}
    _convert(_Logits(decoder), {"visual_tokens": visual, "input_ids": ids}, "logits", length, folder / LOGITS)
    pixels, ids = 255 - pixels, torch.arange(5)[None]  # another image and another length than those of the conversion
    visual = module.encode_images(Pixels(pixels))
    _compare(folder / VISUAL_TOKENS, {"pixel_values": pixels}, visual)
    _compare(folder / LOGITS, {"visual_tokens": visual, "input_ids": ids}, decoder.logits(visual, ids))


class _VisualTokens(nn.Module):
    def __init__(self, module: VisionLanguageModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixel_values: UInt8[Tensor, "1 3 height width"]) -> Float[Tensor, "1 latents width"]:
        return self.module.encode_images(Pixels(pixel_values))


class _Logits(nn.Module):
    def __init__(self, decoder: CausalDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, visual_tokens: Float[Tensor, "1 latents width"], input_ids: Int[Tensor, "1 length"]
    ) -> Float[Tensor, "1 length vocabulary"]:
        return self.decoder.logits(visual_tokens, input_ids)


def _convert(
    graph: nn.Module,
    inputs: Mapping[str, Tensor],
    output: str,
    dynamic_shapes: dict[str, dict[int, Any]],
    file: Path,
) -> None:
    try:
        torch.onnx.export(
            graph.eval(),
            kwargs=dict(inputs),
            f=file,
            input_names=list(inputs),
            output_names=[output],
            opset_version=_OPSET,
            dynamo=True,
            dynamic_shapes=dynamic_shapes or None,
            external_data=False,
            verbose=False,
        )
    except Exception as error:  # torch.export raises errors of many types
        cause = error.__cause__ or error
        reason = one_line(cause)
        raise ValueError(
            f"torch {torch.__version__} cannot convert the graph {file.name}: {type(cause).__name__}: {reason}. "
            "Expected components that torch.export supports. Export without ONNX, or try another version of torch."
        ) from error


def _compare(file: Path, inputs: Mapping[str, Tensor], expected: Tensor) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    difference, largest = float(np.abs(actual - expected.numpy()).max()), float(expected.abs().max())
    if not difference <= _TOLERANCE * largest:
        raise ValueError(
            f"Outputs of {file.name} on onnxruntime differ from those of torch by {difference:.2g}, and the largest is "
            f"{largest:.2g}; expected at most {_TOLERANCE} of it. Export without ONNX, and report the components."
        )
