"""Where in a picture each word of its caption was looked up, and how that is shown."""

import math
from typing import Any

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
    """Map each word of a text over its picture: the word's attention to visual tokens, times theirs to the picture.

    The product follows attention through decoder and resampler (attention rollout, arXiv 2005.00928). It says where the
    model looked, which is not always why it said a word.

    Args:
        module: In evaluation mode.
        image: One picture.
        text: What was said of it.

    Returns:
        The words, and a map for each that sums to one; the grid is that of the encoder's positions.

    Raises:
        TypeError: If the decoder or the resampler cannot say where it looks.
        ValueError: If the encoder's positions fill no square, or the text has no word.

    Example:
        >>> from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch
        >>> module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler, TinyDecoder())
        >>> map_words(module, tiny_batch(1).image, "a field")
        Traceback (most recent call last):
        TypeError: TinyResampler cannot say where its visual tokens look in a picture...
    """
    embeddings = module.image_encoder(image)
    side = math.isqrt(embeddings.shape[1])
    if side * side != embeddings.shape[1]:
        raise ValueError(
            f"The encoder {module.image_encoder.name!r} gives {embeddings.shape[1]} embeddings per picture, which fill "
            "no square, so that nobody knows which part of the picture each is of; expected a square number of them."
        )
    of_queries = module.resampler.attention(embeddings)[0]
    of_words = module.decoder.attention(module.resampler(embeddings), [text])[0]
    maps = of_words.to(of_queries.dtype) @ of_queries
    return tuple(text.split()[: len(maps)]), maps.view(-1, side, side).float().cpu()


def draw_map(
    picture: Image.Image, weights: Float[Tensor, "rows columns"], strongest: float, side: int = 256
) -> Image.Image:
    """Lay a map over its picture: in grey where nothing was read, the warmer the more.

    Args:
        picture: RGB, square.
        weights: The map.
        strongest: The weight that gets the whole of the colour.
        side: Height and width of what is drawn, in pixels.

    Example:
        >>> draw_map(Image.new("RGB", (64, 64)), torch.rand(8, 8), strongest=1.0).size
        (256, 256)
    """
    from matplotlib import colormaps

    grey = np.asarray(picture.convert("L").resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
    heat = Image.fromarray((weights / max(strongest, 1e-9)).clamp(0, 1).numpy().astype(np.float32))
    share: Any = np.asarray(heat.resize((side, side), Image.Resampling.BICUBIC)).clip(0, 1)
    colors = colormaps["inferno"](0.25 + 0.75 * share)[..., :3] * 255
    alpha = 0.75 * share[..., None] ** 0.75
    return Image.fromarray((grey[..., None] * (1 - alpha) + colors * alpha).round().astype(np.uint8))
