"""aMUSEd (Patil et al., arXiv 2401.01808), an open reproduction of MUSE, with diffusers and transformers."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from synth2_lightning.generators.amused_scheduler import amused_mask_counts, sample_step
from synth2_lightning.interfaces import ImageGenerator
from synth2_lightning.io.fingerprints import fingerprint_codebook, fingerprint_weights
from synth2_lightning.io.locations import locate_model
from synth2_lightning.io.precision import WeightType, weight_dtype
from synth2_lightning.types import Condition, VQTokens

_COMPONENTS = ("transformer", "vqvae", "text_encoder", "tokenizer", "scheduler")
_logger = logging.getLogger(__name__)


class AmusedGenerator(ImageGenerator):
    """Samples tokens of aMUSEd's VQ-GAN from captions by parallel decoding (MaskGIT, arXiv 2202.04200).

    The tokens of a record equal those of diffusers' ``AmusedPipeline`` for its caption and a generator with its seed,
    in any batch. A VLM that trains on them needs the encoder
    ``VQGANTokenizer("amused/amused-256", image_size=256, subfolder="vqvae", pixel_range=(0, 1))``.

    Args:
        model: Hugging Face Hub id, such as ``amused/amused-256``, or a folder of the same layout: a path,
            ``package://`` or ``weights://``.
        num_steps: Number of decoding steps.
        guidance_scale: Scale of classifier-free guidance (arXiv 2207.12598); 1 disables guidance and halves the
            computation.
        temperature: Temperature of the noise on token confidences in the first and in the last step.
        negative_text: Text of the unconditional branch of guidance.
        original_size: Micro-condition: width and height in pixels of the original photo; by default those of the
            generated image.
        crop: Micro-condition: pixels cropped at the top and left.
        aesthetic_score: Micro-condition: LAION aesthetic score, about 1 to 10.
        dtype: Precision of the weights. Guidance and sampling use float32.
        name: First part of the codebook's fingerprint; must equal the ``name`` of the VQGANTokenizer of the tokens.

    Attributes:
        codebook: Fingerprint of the VQ-GAN's codebook, known after ``load()``.
        num_truncated: Number of captions truncated to the text encoder's context length so far.

    Raises:
        FileNotFoundError: If the folder or one of its subfolders does not exist.
        ValueError: If ``num_steps`` or ``guidance_scale`` is below 1.
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
        dtype: WeightType = "float32",
        name: str = "vqgan",
    ) -> None:
        super().__init__()
        if num_steps < 1 or guidance_scale < 1:
            raise ValueError(
                f"AmusedGenerator got num_steps={num_steps} and guidance_scale={guidance_scale}; expected 1 or more of "
                "each. A guidance_scale of 1 disables guidance."
            )
        self._model = locate_model(model, "aMUSEd model")
        _check_components(self._model)
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

    def _load(self) -> None:
        from diffusers import AmusedScheduler, UVit2DModel, VQModel
        from transformers import CLIPTextModelWithProjection, CLIPTokenizer

        dtype, device = weight_dtype(self.dtype, self._model), self.micro_conditions.device
        self._tokenizer = CLIPTokenizer.from_pretrained(self._model, subfolder="tokenizer")
        self._scheduler = AmusedScheduler.from_pretrained(self._model, subfolder="scheduler")
        vqgan = VQModel.from_pretrained(self._model, subfolder="vqvae", use_safetensors=True)
        text_encoder = CLIPTextModelWithProjection.from_pretrained(self._model, subfolder="text_encoder", dtype=dtype)
        transformer = UVit2DModel.from_pretrained(
            self._model, subfolder="transformer", use_safetensors=True, torch_dtype=dtype
        )
        self._text_length = int(text_encoder.config.max_position_embeddings)
        if self._is_too_long(self.negative_text):
            raise ValueError(
                f"AmusedGenerator.negative_text exceeds the context length of the text encoder; expected at most "
                f"{self._text_length} tokens, got {self.negative_text!r}. Shorten it."
            )
        image_size = transformer.config.sample_size * 2 ** (len(vqgan.config.block_out_channels) - 1)
        if self.original_size is None:
            self.micro_conditions[:2] = image_size
        self.text_encoder = text_encoder.to(device)
        self.transformer = transformer.to(device)
        self.codebook = fingerprint_codebook(self.name, vqgan.quantize.embedding.weight, image_size)
        self.codebook_size = int(vqgan.config.num_vq_embeddings)

    def provenance(self) -> dict[str, Any]:
        """Return fingerprints of the weights and every argument of the sampler."""
        return {
            "generator": f"amused:{self._model}",
            "weights": fingerprint_weights("amused", self),
            "codebook": self.codebook,
            "num_steps": self.num_steps,
            "guidance_scale": self.guidance_scale,
            "temperature": list(self.temperature),
            "negative_text": self.negative_text,
            "micro_conditions": self.micro_conditions.tolist(),
            "dtype": str(self.transformer.dtype).removeprefix("torch."),
        }

    @torch.no_grad()
    def generate(self, captions: Sequence[Condition], seeds: Sequence[int]) -> VQTokens:
        """Return the tokens of one image per caption, in raster order.

        Raises:
            ValueError: If an image has several captions: aMUSEd is conditioned on one pooled embedding as well.
        """
        self.check_request(captions, seeds)
        texts = [_get_only_caption(caption) for caption in captions]
        if self.transformer is None:
            raise RuntimeError("AmusedGenerator is not loaded; call load() before generate().")
        device, side = self.micro_conditions.device, self.transformer.config.sample_size
        self._count_truncated(texts)
        pooled, hidden = self._encode(texts)
        if self.guidance_scale > 1:
            null_pooled, null_hidden = self._encode([self.negative_text])
            pooled = torch.cat([null_pooled.expand_as(pooled), pooled])
            hidden = torch.cat([null_hidden.expand_as(hidden), hidden])
        noises = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        mask_id = self._scheduler.config.mask_token_id
        ids = torch.full((len(captions), side * side), mask_id, device=device)
        num_masked = amused_mask_counts(side * side, self.num_steps, self._scheduler.config.masking_schedule)
        temperatures = torch.linspace(*self.temperature, self.num_steps, device=device)
        for number, temperature in zip([*num_masked, None], temperatures, strict=True):
            logits = self._predict(ids.view(-1, side, side), pooled, hidden).flatten(2)
            ids = sample_step(logits, ids, noises, mask_id, number, temperature)
        return VQTokens(ids[..., None], self.codebook)

    def _encode(self, texts: Sequence[str]) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch length width"]]:
        ids = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self._text_length, return_tensors="pt"
        ).input_ids
        # No mask: aMUSEd was trained with attention to the padding.
        output = self.text_encoder(ids.to(self.micro_conditions.device), output_hidden_states=True)
        return output.text_embeds, output.hidden_states[-2]

    def _predict(
        self, ids: Int[Tensor, "batch side side"], pooled: Tensor, hidden: Tensor
    ) -> Float[Tensor, "batch codes side side"]:
        copies = len(pooled) // len(ids)  # two with guidance: unconditional and conditional
        logits: Tensor = self.transformer(
            ids.repeat(copies, 1, 1),
            encoder_hidden_states=hidden,
            pooled_text_emb=pooled,
            micro_conds=self.micro_conditions.expand(len(pooled), -1),
        ).float()
        if copies == 1:
            return logits
        null, conditional = logits.chunk(2)
        return null + self.guidance_scale * (conditional - null)

    def _is_too_long(self, text: str) -> bool:
        return len(self._tokenizer(text, verbose=False).input_ids) > self._text_length

    def _count_truncated(self, captions: Sequence[str]) -> None:
        truncated = [caption for caption in captions if self._is_too_long(caption)]
        if truncated:
            self.num_truncated += len(truncated)
            _logger.warning(
                "%d of %d captions exceed the text encoder's context length of %d tokens and were truncated (%d so "
                "far), such as %r",
                *(len(truncated), len(captions), self._text_length, self.num_truncated, truncated[0]),
            )


def _get_only_caption(captions: Condition) -> str:
    if isinstance(captions, str):
        return captions
    if len(captions) > 1:
        raise ValueError(
            f"AmusedGenerator got {len(captions)} captions of one image, the first of them {captions[0]!r}; expected "
            "one. Set data.init_args.num_conditions to 1, or use MuseGenerator."
        )
    return captions[0]


def _check_components(model: str) -> None:
    folder = Path(model)
    missing = [part for part in _COMPONENTS if not (folder / part).is_dir()]
    if folder.is_dir() and missing:
        raise FileNotFoundError(
            f"The aMUSEd model at {model!r} has no subfolder {', '.join(missing)}; expected {', '.join(_COMPONENTS)}, "
            "as in amused/amused-256 on the Hugging Face Hub. Copy all subfolders."
        )
