"""aMUSEd (Patil et al., arXiv 2401.01808): open weights after MUSE, through diffusers and transformers."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from synth2_lightning.fingerprints import fingerprint_codebook, fingerprint_weights
from synth2_lightning.interfaces import ImageGenerator
from synth2_lightning.locations import locate_model
from synth2_lightning.types import VQTokens

_PARTS = ("transformer", "vqvae", "text_encoder", "tokenizer", "scheduler")
_logger = logging.getLogger(__name__)


class AmusedGenerator(ImageGenerator):
    """Captions become tokens of aMUSEd's own VQ-GAN by parallel decoding (MaskGIT, arXiv 2202.04200).

    The tokens are those that diffusers' ``AmusedPipeline`` draws for the one caption from a generator with the
    record's seed; only here many captions share a batch. A VLM trains on them whose encoder is
    ``VQGANTokenizer("amused/amused-256", image_size=256, subfolder="vqvae", pixel_range=(0, 1))``.

    Args:
        model: Id on the Hugging Face Hub, such as ``amused/amused-256``, or a folder in the same layout: a path,
            ``package://`` or ``weights://``.
        num_steps: Passes of the transformer over all tokens.
        guidance_scale: Logits are moved from those without the caption to so many times their distance to those
            with it (arXiv 2207.12598); 1 is no guidance, at half the work.
        temperature: Noise on the confidence by which tokens are kept, in the first and in the last step.
        negative_text: What guidance leads away from.
        original_size: Width and height in pixels of the photograph that the picture shall look scaled down from;
            by default the size of what is generated.
        crop: Upper and left pixels that the picture shall look cut off by.
        aesthetic_score: How beautiful the picture shall be, in LAION's score of about 1 to 10.
        dtype: Precision of the weights. Guidance and sampling are done in float32.
        name: First part of the codebook's fingerprint; the ``name`` of the VQGANTokenizer that reads the tokens.

    Attributes:
        codebook: Fingerprint of the VQ-GAN's codebook, known after ``load()``.
        num_truncated: How many captions were cut to the text encoder's length so far.

    Raises:
        FileNotFoundError: If there is no such folder, or a part is missing in it.
        ValueError: If ``num_steps`` or ``guidance_scale`` is below 1.

    Example:
        >>> generator = AmusedGenerator("amused/amused-256", num_steps=8)  # no weights yet
        >>> generator.num_steps, generator.guidance_scale
        (8, 10.0)
    """

    micro_conditions: Float[Tensor, "5"]

    def __init__(
        self,
        model: str = "amused/amused-256",
        num_steps: int = 12,
        guidance_scale: float = 10.0,
        temperature: tuple[float, float] = (2.0, 0.0),
        negative_text: str = "",
        original_size: tuple[int, int] | None = None,
        crop: tuple[int, int] = (0, 0),
        aesthetic_score: float = 6.0,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        name: str = "vqgan",
    ) -> None:
        super().__init__()
        if num_steps < 1 or guidance_scale < 1:
            raise ValueError(
                f"AmusedGenerator was given num_steps={num_steps} and guidance_scale={guidance_scale}; expected 1 or "
                "more of each. A scale of 1 is no guidance."
            )
        self._model = locate_model(model, "aMUSEd model")
        _check_parts(self._model)
        self.num_steps = num_steps
        self.guidance_scale = guidance_scale
        self.temperature = temperature
        self.negative_text = negative_text
        self.original_size = original_size
        self.dtype = dtype
        self.name = name
        self.codebook = ""
        self.codebook_size = 0
        self.num_truncated = 0
        self.transformer: Any = None
        conditions = torch.tensor([*(original_size or (0, 0)), *crop, aesthetic_score])
        self.register_buffer("micro_conditions", conditions, persistent=False)

    def load(self) -> None:
        """Bring the weights and take the codebook's fingerprint; the second call does nothing.

        Raises:
            OSError: If they cannot be had.
            ValueError: If the negative text is longer than the text encoder reads.
        """
        if self.transformer is not None:
            return
        from diffusers import AmusedScheduler, UVit2DModel, VQModel
        from transformers import CLIPTextModelWithProjection, CLIPTokenizer

        dtype, device = getattr(torch, self.dtype), self.micro_conditions.device
        self._tokenizer = CLIPTokenizer.from_pretrained(self._model, subfolder="tokenizer")
        self._scheduler = AmusedScheduler.from_pretrained(self._model, subfolder="scheduler")
        vqgan = VQModel.from_pretrained(self._model, subfolder="vqvae", use_safetensors=True)
        text_encoder = CLIPTextModelWithProjection.from_pretrained(self._model, subfolder="text_encoder", dtype=dtype)
        transformer = UVit2DModel.from_pretrained(
            self._model, subfolder="transformer", use_safetensors=True, torch_dtype=dtype
        )
        self._text_length = int(text_encoder.config.max_position_embeddings)
        if self._is_cut(self.negative_text):
            raise ValueError(
                f"AmusedGenerator.negative_text is longer than the {self._text_length} tokens that the text encoder "
                f"reads: {self.negative_text!r}. Shorten it."
            )
        if self.original_size is None:
            self.micro_conditions[:2] = transformer.config.sample_size * 2 ** (len(vqgan.config.block_out_channels) - 1)
        self.text_encoder = text_encoder.requires_grad_(False).eval().to(device)
        self.transformer = transformer.requires_grad_(False).eval().to(device)
        self.codebook = fingerprint_codebook(self.name, vqgan.quantize.embedding.weight)
        self.codebook_size = int(vqgan.config.num_vq_embeddings)

    def provenance(self) -> dict[str, Any]:
        """Give what decides the tokens besides caption and seed."""
        return {
            "generator": f"amused:{self._model}",
            "weights": fingerprint_weights("amused", self),
            "codebook": self.codebook,
            "num_steps": self.num_steps,
            "guidance_scale": self.guidance_scale,
            "temperature": list(self.temperature),
            "negative_text": self.negative_text,
            "micro_conditions": self.micro_conditions.tolist(),
            "dtype": self.dtype,
        }

    def train(self, mode: bool = True) -> "AmusedGenerator":
        """Stay in evaluation mode: nothing here learns."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> VQTokens:
        """Synthesise the tokens of one picture per caption, in raster order.

        Raises:
            RuntimeError: If ``load()`` was not called.
            ValueError: If a caption is empty, or there are not as many seeds as captions.
        """
        self.check_request(captions, seeds)
        if self.transformer is None:
            raise RuntimeError("The aMUSEd generator has no weights yet; call load() before generating.")
        device, side = self.micro_conditions.device, self.transformer.config.sample_size
        self._count_cut(captions)
        pooled, hidden = self._encode(captions)
        if self.guidance_scale > 1:
            null_pooled, null_hidden = self._encode([self.negative_text])
            pooled = torch.cat([null_pooled.expand_as(pooled), pooled])
            hidden = torch.cat([null_hidden.expand_as(hidden), hidden])
        noises = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        ids = torch.full((len(captions), side, side), self._scheduler.config.mask_token_id, device=device)
        self._scheduler.set_timesteps(self.num_steps, self.temperature, device)
        for step in reversed(range(self.num_steps)):
            logits = self._predict(ids, pooled, hidden)
            # One record at a time, or the noise of a record would depend on who shares its batch.
            rows = zip(logits.chunk(len(ids)), ids.chunk(len(ids)), noises, strict=True)
            drawn = [self._scheduler.step(row, step, known, generator=noise) for row, known, noise in rows]
            ids = torch.cat([record.prev_sample for record in drawn])
        return VQTokens(rearrange(ids, "b h w -> b (h w) 1"), self.codebook)

    def _encode(self, texts: Sequence[str]) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch length width"]]:
        ids = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self._text_length, return_tensors="pt"
        ).input_ids
        # No mask: aMUSEd was trained to see the padding.
        output = self.text_encoder(ids.to(self.micro_conditions.device), output_hidden_states=True)
        return output.text_embeds, output.hidden_states[-2]

    def _predict(
        self, ids: Int[Tensor, "batch side side"], pooled: Tensor, hidden: Tensor
    ) -> Float[Tensor, "batch codes side side"]:
        copies = len(pooled) // len(ids)  # two with guidance: without the caption, and with it
        logits = self.transformer(
            ids.repeat(copies, 1, 1),
            encoder_hidden_states=hidden,
            pooled_text_emb=pooled,
            micro_conds=self.micro_conditions.expand(len(pooled), -1),
        ).float()
        if copies == 1:
            return cast(Tensor, logits)
        null, asked = logits.chunk(2)
        return cast(Tensor, null + self.guidance_scale * (asked - null))

    def _is_cut(self, text: str) -> bool:
        return len(self._tokenizer(text, verbose=False).input_ids) > self._text_length

    def _count_cut(self, captions: Sequence[str]) -> None:
        cut = [caption for caption in captions if self._is_cut(caption)]
        if cut:
            self.num_truncated += len(cut)
            _logger.warning(
                "%d of %d captions are longer than the %d tokens that the text encoder reads, and were cut (%d so "
                "far), such as %r",
                *(len(cut), len(captions), self._text_length, self.num_truncated, cut[0]),
            )


def _check_parts(model: str) -> None:
    folder = Path(model)
    missing = [part for part in _PARTS if not (folder / part).is_dir()]
    if folder.is_dir() and missing:
        raise FileNotFoundError(
            f"The aMUSEd model at {model!r} has no subfolder {', '.join(missing)}; expected {', '.join(_PARTS)}, as in "
            "amused/amused-256 on the Hugging Face Hub. Copy the whole of it."
        )
