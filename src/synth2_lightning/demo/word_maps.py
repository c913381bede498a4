"""Attention maps of the words of a caption over its image."""

import math

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.types import ImageInput


@torch.no_grad()
def map_words(
    module: VisionLanguageModule, image: ImageInput, text: str
) -> tuple[tuple[str, ...], Float[Tensor, "words rows columns"]]:
    """Return the attention of each word to each position of the image.

    The map of a word is the product of its attention to the visual tokens and theirs to the encoder's positions
    (attention rollout, arXiv 2005.00928). High attention is not always the cause of a word.

    Args:
        module: A captioner in evaluation mode.
        image: One image.
        text: Its caption.

    Returns:
        The words, and a map for each that sums to one, on the grid of the encoder's positions.

    Raises:
        TypeError: If the decoder or the resampler has no attention weights.
        ValueError: If the number of the encoder's positions is not a square, or the text is empty.

    Example:
        >>> from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch
        >>> module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
        >>> map_words(module, tiny_batch(1).image, "a field")
        Traceback (most recent call last):
        TypeError: TinyResampler ...
    """
    embeddings = module.image_encoder(image)
    side = math.isqrt(embeddings.shape[1])
    if side * side != embeddings.shape[1]:
        raise ValueError(
            f"The encoder {module.image_encoder.name!r} returns {embeddings.shape[1]} embeddings per image; expected a "
            "square number, because attention maps need a square grid of positions."
        )
    to_positions = module.resampler.attention(embeddings)[0]
    to_visual = module.decoder.attention(module.resampler(embeddings), [text])[0]
    maps = to_visual.to(to_positions.dtype) @ to_positions
    return tuple(text.split()[: len(maps)]), maps.view(-1, side, side).float().cpu()


def draw_map(
    image: Image.Image, weights: Float[Tensor, "rows columns"], strongest: float, side: int = 256
) -> Image.Image:
    """Return the image in gray, overlaid with a map in warmer colors for larger weights.

    Args:
        image: RGB, square.
        weights: The map.
        strongest: The weight of the warmest color.
        side: Height and width of the result in pixels.

    Example:
        >>> draw_map(Image.new("RGB", (64, 64)), torch.rand(8, 8), strongest=1.0).size
        (256, 256)
    """
    from matplotlib import colormaps

    gray = np.asarray(image.convert("L").resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
    heat = Image.fromarray((weights / max(strongest, 1e-9)).clamp(0, 1).numpy().astype(np.float32))
    heat_level = np.asarray(heat.resize((side, side), Image.Resampling.BICUBIC)).clip(0, 1)
    colors = colormaps["inferno"](0.25 + 0.75 * heat_level)[..., :3] * 255
    alpha = 0.75 * heat_level[..., None] ** 0.75
    return Image.fromarray((gray[..., None] * (1 - alpha) + colors * alpha).round().astype(np.uint8))
