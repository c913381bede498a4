"""Training and captioning at the sizes of ``experiments/paper/mixed.yaml``; a section of ``gpu.py``.

The VQ-GAN, the resampler and the frozen language model (the shape of SmolLM2-360M) have random weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import VQModel

from embedding_vs_pixel import CAPTION, VQGAN
from gpu_measure import DEVICE, emit, emit_if_it_fits, emit_profile, peak_gib, seconds_of
from gpu_muse import autocast
from synth2_lightning.decoders.cross_attention import CrossAttentionDecoder
from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.decoders.vocabulary import build_vocabulary
from synth2_lightning.encoders.vqgan import VQGANTokenizer
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.nn.perceiver import PerceiverResampler
from synth2_lightning.training.compilation import compile_blocks
from synth2_lightning.types import GenerationSettings, ImageInput, ImageTextBatch, Pixels, SampleInfo, VQTokens

SMOLLM2_360M = {
    "model_type": "llama",
    "hidden_size": 960,
    "intermediate_size": 2560,
    "num_hidden_layers": 32,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
    "tie_word_embeddings": True,
}
NUM_WORDS = 49152
"""Vocabulary of SmolLM2; the language model's last layer depends on it."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the components, and of the batch."""

    vqgan: dict[str, Any] = field(default_factory=lambda: VQGAN)
    language_model: dict[str, Any] = field(default_factory=lambda: SMOLLM2_360M)
    num_words: int = NUM_WORDS
    image_size: int = 256
    num_latents: int = 64
    depth: int = 6
    num_heads: int = 16
    head_dim: int = 64
    width: int = 1024
    cross_attn_every_n_layers: int = 4
    batch: int = 64
    max_new_tokens: int = 30
    rounds: int = 5


PAPER = Sizes()
QUICK = Sizes(
    vqgan=VQGAN | {"block_out_channels": [16] * 5, "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 8,
                   "vq_embed_dim": 8, "num_vq_embeddings": 32, "sample_size": 32},
    language_model=SMOLLM2_360M | {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                                   "num_attention_heads": 2, "num_key_value_heads": 1},
    num_words=40, image_size=32, num_latents=2, depth=1, num_heads=2, head_dim=8, width=16,
    cross_attn_every_n_layers=2, batch=2, max_new_tokens=4, rounds=1,
)  # fmt: skip


def make_module(sizes: Sizes, folder: Path) -> VisionLanguageModule:
    """Return a captioner with random weights on the device; its language model is frozen."""
    torch.manual_seed(0)
    VQModel(**sizes.vqgan).save_pretrained(folder / "vqgan")
    words = [f"word{number}" for number in range(sizes.num_words - 20)]
    build_vocabulary([CAPTION, *words], 1, folder / "vocabulary")
    tokenizer = VQGANTokenizer(str(folder / "vqgan"))
    resampler = PerceiverResampler(
        num_latents=sizes.num_latents,
        depth=sizes.depth,
        num_heads=sizes.num_heads,
        head_dim=sizes.head_dim,
        width=sizes.width,
        num_positions=tokenizer.num_tokens,
        checkpoint_activations=True,
    )
    source = NewLanguageModel(sizes.language_model, str(folder / "vocabulary"))
    decoder = CrossAttentionDecoder(source, sizes.cross_attn_every_n_layers, checkpoint_activations=True)
    module = VisionLanguageModule(tokenizer, resampler, decoder)
    module.configure_model()
    for name, weight in module.decoder.named_parameters():
        weight.requires_grad_("gated_cross_attn" in name)
    return module.to(DEVICE).train()


def make_batches(module: VisionLanguageModule, sizes: Sizes) -> dict[str, ImageTextBatch]:
    """Return random images as tokens and as pixels."""
    tokenizer = module.image_encoder
    assert isinstance(tokenizer, VQGANTokenizer)
    ids = torch.randint(tokenizer.codebook_size, (sizes.batch, tokenizer.num_tokens, 1), device=DEVICE)
    shape = sizes.batch, 3, sizes.image_size, sizes.image_size
    pixels = torch.randint(256, shape, dtype=torch.uint8, device=DEVICE)
    images: dict[str, ImageInput] = {"tokens": VQTokens(ids, tokenizer.codebook), "pixels": Pixels(pixels)}
    samples = tuple(SampleInfo(str(number), "random") for number in range(sizes.batch))
    return {name: ImageTextBatch(image, (CAPTION,) * sizes.batch, samples) for name, image in images.items()}


def caption(is_quick: bool) -> None:
    """Emit figures of training steps on tokens and on pixels, of their tokenization, and of greedy and beam search."""
    sizes = QUICK if is_quick else PAPER
    with TemporaryDirectory() as folder:
        module = make_module(sizes, Path(folder))
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    batches = make_batches(module, sizes)
    emit(trained_parameters=module.num_trainable(), batch=sizes.batch)

    def step(batch: ImageTextBatch) -> None:
        with autocast():
            loss = module.compute_loss(module.encode_images(batch.image), batch).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def measure(run: Callable[[], object]) -> dict[str, float]:
        return {"ms": 1000 * seconds_of(run, sizes.rounds), "gib": peak_gib()}

    for name, batch in batches.items():
        emit_if_it_fits(name, partial(measure, partial(step, batch)))
    emit_profile("tokens", partial(step, batches["tokens"]), times=3)
    assert isinstance(module.decoder, CrossAttentionDecoder)
    for count in (sizes.batch, 1024):
        texts = [f"{CAPTION} word{number}" for number in range(count)]
        encode = partial(module.decoder.caption_tokenizer.encode, texts, None)
        emit(**{f"tokenize_{count}_ms": 1000 * seconds_of(encode, rounds=5)})
    module.eval()

    def generate(settings: GenerationSettings) -> dict[str, float]:
        def run() -> None:
            with torch.inference_mode(), autocast():
                visual = module.encode_images(batches["tokens"].image)
                module.decoder.generate(visual, settings)

        # Random weights hardly ever end a text before its maximum length.
        seconds = seconds_of(run, rounds=2, warmup=1)
        return {"tokens_per_second": sizes.batch * sizes.max_new_tokens / seconds, "gib": peak_gib()}

    for num_beams in (1, 3):
        settings = GenerationSettings(max_new_tokens=sizes.max_new_tokens, num_beams=num_beams)
        emit_if_it_fits(f"beams_{num_beams}", partial(generate, settings))
    module.train()
    for part in (module.resampler, module.decoder):
        compile_blocks(part)
    emit_if_it_fits("tokens_compiled", partial(measure, partial(step, batches["tokens"])))
