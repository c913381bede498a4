"""Processor of transformers for exported captioners: resizes and crops images, tokenizes prompts."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
from transformers import BaseImageProcessor, BatchFeature, ProcessorMixin

from synth2_lightning.decoders.causal import CausalDecoder
from synth2_lightning.decoders.tokens import CaptionTokenizer
from synth2_lightning.export.image_inputs import MAX_PIXELS, ImageLike, read_image
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.sources.images import center_crop, pixel_limit

NestedImages = ImageLike | Sequence[ImageLike] | Sequence[Sequence[ImageLike]]
"""One image, several, or the only image of each row, as pipelines pass them."""


def find_token_decoder(module: VisionLanguageModule) -> CausalDecoder | None:
    """Return the decoder of a captioner whose texts are the tokens that it generates.

    ``None`` if a subclass of the module changes the texts, or the decoder has no tokenizer of transformers.

    Example:
        >>> from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler
        >>> find_token_decoder(VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())) is None
        True
    """
    is_plain = type(module).generate is VisionLanguageModule.generate
    return module.decoder if is_plain and isinstance(module.decoder, CausalDecoder) else None


def make_processor(module: VisionLanguageModule, decoder: CausalDecoder) -> "Synth2Processor":
    """Return the processor of a captioner, with the decoder of :func:`find_token_decoder`."""
    size = module.image_encoder.image_size
    tokenizer = copy(decoder.source.tokenizer)
    tokenizer.chat_template = None  # of the language model alone: it has no place for an image
    return Synth2Processor(Synth2ImageProcessor({"height": size, "width": size}), tokenizer)


class Synth2ImageProcessor(BaseImageProcessor):  # type: ignore[misc]  # transformers has no types
    """Reads, resizes and crops images, as in validation; the captioner's encoder normalizes them.

    Args:
        size: ``height`` and ``width`` of the square in pixels.
        **kwargs: Other keys of the file that it is read from.

    Example:
        >>> processor = Synth2ImageProcessor({"height": 4, "width": 4})
        >>> processor(np.zeros((6, 8, 3), dtype=np.uint8), return_tensors="pt")["pixel_values"].shape
        torch.Size([1, 3, 4, 4])
    """

    model_input_names = ("pixel_values",)

    def __init__(self, size: Mapping[str, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = dict(size)

    def preprocess(self, images: NestedImages, return_tensors: str | None = None, **kwargs: Any) -> BatchFeature:
        """Return ``pixel_values`` of uint8, of shape ``(batch, 3, height, width)``.

        Args:
            images: One image or a sequence, see :data:`~synth2_lightning.export.image_inputs.ImageLike`.
            return_tensors: ``"pt"`` for tensors of torch.
            **kwargs: None: the pixels are those that the captioner was trained with.

        Raises:
            OSError: If a file cannot be read.
            ValueError: If an array has another dtype or shape, or an option is given.
        """
        if kwargs:
            raise ValueError(
                f"Synth2ImageProcessor got {', '.join(kwargs)}; expected none of them, because captions depend on the "
                "preprocessing of the training."
            )
        size = self.size["height"]
        with pixel_limit(MAX_PIXELS):
            squares = [
                np.asarray(center_crop(read_image(image, f"number {index}", size), size))
                for index, image in enumerate(flatten(images))
            ]
        return BatchFeature({"pixel_values": np.stack(squares).transpose(0, 3, 1, 2)}, tensor_type=return_tensors)


class Synth2Processor(ProcessorMixin):  # type: ignore[misc]  # transformers has no types
    """Prepares images and prompts for :class:`~synth2_lightning.export.pretrained.Synth2ForConditionalGeneration`.

    Args:
        image_processor: Makes pixels.
        tokenizer: Of the decoder.
    """

    def __init__(self, image_processor: Synth2ImageProcessor, tokenizer: Any) -> None:
        super().__init__(image_processor, tokenizer)

    def __call__(
        self,
        images: NestedImages,
        text: str | Sequence[str] | None = None,
        return_tensors: str | None = "pt",
        padding: bool = True,
    ) -> BatchFeature:
        """Return ``pixel_values``, and for prompts ``input_ids`` and ``attention_mask``.

        Args:
            images: One image or a sequence.
            text: A prompt for all images, or one per image. By default the captioner's prompt, which needs no ids.
            return_tensors: ``"pt"``: the model takes tensors of torch.
            padding: Must be true: prompts are padded on the left.

        Raises:
            OSError: If an image cannot be read.
            ValueError: If the number of prompts is not that of the images, or an argument has another value.
        """
        if return_tensors != "pt" or not padding:
            raise ValueError(
                f"Synth2Processor got return_tensors={return_tensors!r} and padding={padding}; expected 'pt' and True."
            )
        inputs = self.image_processor(images, return_tensors="pt")
        if text is None:
            return inputs
        num_images = len(inputs["pixel_values"])
        tokenizer = CaptionTokenizer(self.tokenizer, "", None)
        prompts = [text] * num_images if isinstance(text, str) else tokenizer.fill_prompts(text, num_images)
        tokens = tokenizer.encode_prompts(prompts)
        inputs["input_ids"] = tokens.inputs.masked_fill(~tokens.mask, tokenizer.pad_id)
        inputs["attention_mask"] = tokens.mask.long()
        return inputs


def flatten(images: Any) -> list[ImageLike]:
    """Return the images of one image, a sequence, or a sequence of sequences, as pipelines pass them.

    Example:
        >>> flatten(["a.jpg", ["b.jpg"]])
        ['a.jpg', 'b.jpg']
    """
    if not isinstance(images, list | tuple):
        return [images]
    return [inner for image in images for inner in flatten(image)]
