"""Caption images with the ONNX graphs of an export, without torch.

    pip install onnxruntime tokenizers numpy pillow
    synth2 export runs/version_0 --out my-captioner --onnx
    python examples/caption_onnx.py my-captioner a.jpg b.png

Decoding is greedy: the captions are those of ``synth2 caption my-captioner --num_beams 1``, except for images that it
turns upright, reduces while decoding or draws on white, and for settings such as ``repetition_penalty``.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from PIL import Image
from tokenizers import Tokenizer


class OnnxCaptioner:
    """Captions images greedily, one at a time.

    Args:
        folder: An export with ``onnx/``.
    """

    def __init__(self, folder: Path) -> None:
        providers = ["CPUExecutionProvider"]
        self.visual_tokens = InferenceSession(folder / "onnx" / "visual_tokens.onnx", providers=providers)
        self.logits = InferenceSession(folder / "onnx" / "logits.onnx", providers=providers)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        special = json.loads((folder / "tokenizer_config.json").read_text())
        self.eos_id, self.bos_id, self.unk_id = (
            self.tokenizer.token_to_id(special[name]) if special.get(name) else None
            for name in ("eos_token", "bos_token", "unk_token")
        )
        arguments = json.loads((folder / "config.json").read_text())["model"]["init_args"]
        self.max_new_tokens = arguments.get("generation", {}).get("max_new_tokens", 30)
        self.prompt_ids = self._encode(arguments["decoder"]["init_args"].get("prompt", ""))
        self.image_size = self.visual_tokens.get_inputs()[0].shape[-1]

    def caption(self, image: Image.Image) -> str:
        """Return the caption of an image of any size."""
        pixels = np.asarray(_crop(image.convert("RGB"), self.image_size)).transpose(2, 0, 1)[None]
        (visual,) = self.visual_tokens.run(None, {"pixel_values": pixels})
        ids: list[int] = []
        while len(ids) < self.max_new_tokens and self.eos_id not in ids:
            ids.append(int(self._next_logits(visual, ids).argmax()))
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _next_logits(self, visual: NDArray[Any], ids: list[int]) -> NDArray[Any]:
        (logits,) = self.logits.run(
            None, {"visual_tokens": visual, "input_ids": np.array([self.prompt_ids + ids], dtype=np.int64)}
        )
        last: NDArray[Any] = logits[0, -1]
        if self.unk_id is not None and self.unk_id != self.eos_id:
            last[self.unk_id] = -np.inf  # no word of a caption
        return last

    def _encode(self, prompt: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(prompt.rstrip(" ")).ids
        return ids or [self.eos_id if self.bos_id is None else self.bos_id]


def _crop(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side and crop the central square."""
    if image.size == (size, size):
        return image
    width, height = image.size
    scaled = (size, size * height // width) if width <= height else (size * width // height, size)
    left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    return image.resize(scaled, Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))


if __name__ == "__main__":
    captioner = OnnxCaptioner(Path(sys.argv[1]))
    for name in sys.argv[2:]:
        with Image.open(name) as image:
            sys.stdout.write(f"{name}\t{captioner.caption(image)}\n")
