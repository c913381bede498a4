"""Training and sampling of MaskGit with 624 million parameters; a section of ``gpu.py``.

Codes, code embeddings and texts have the sizes of ``experiments/paper/generator.yaml``: 16 by 16 tokens, 8,192 codes,
64 words of a frozen T5-large. Tokens, texts and weights are random.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gpu_measure import DEVICE, HAS_GPU, emit, emit_if_it_fits, emit_profile, peak_gib, seconds_of
from synth2_lightning.generators.muse import sample_image_tokens
from synth2_lightning.interfaces import TextEncoder
from synth2_lightning.modules.muse import MuseModule
from synth2_lightning.nn.maskgit import MaskGit
from synth2_lightning.nn.parallel_decoding import MaskGitSampling
from synth2_lightning.nn.unmasking import ConfidenceOrder
from synth2_lightning.testing import TinyImageTokenizer
from synth2_lightning.types import ImageTextBatch, SampleInfo, VQTokens

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12}
"""Dense bfloat16 operations per second in the vendor's data sheets."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the network, and of its batches."""

    side: int = 16
    codes: int = 8192
    code_dim: int = 64
    words: int = 64
    text_dim: int = 1024
    width: int = 1280
    depth: int = 24
    num_heads: int = 20
    train_batches: tuple[int, ...] = (64, 96, 128)
    sample_batches: tuple[int, ...] = (64, 256, 512)
    num_steps: int = 24
    rounds: int = 5


PAPER = Sizes()
QUICK = Sizes(4, 32, 8, 5, 16, 32, 2, 2, (2, 3), (2, 3), 4, 1)


class RandomCodebook(TinyImageTokenizer):
    """Random codes."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.num_tokens, self.codebook_size, self.embed_dim = sizes.side**2, sizes.codes, sizes.code_dim
        self.vectors = torch.randn(sizes.codes, sizes.code_dim)


class RandomTexts(TextEncoder):
    """Random text embeddings on the device."""

    name = "random"

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embed_dim = sizes.text_dim
        self.words = sizes.words

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return embeddings without padding."""
        shape = len(texts), self.words
        return torch.randn(*shape, self.embed_dim, device=DEVICE), torch.ones(shape, dtype=torch.bool, device=DEVICE)


def autocast() -> AbstractContextManager[object]:
    """Return the precision of ``trainer.precision=auto``."""
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=HAS_GPU)


def make_module(sizes: Sizes) -> MuseModule:
    """Return the generator's module with random weights on the device."""
    torch.manual_seed(0)
    network = partial(MaskGit, width=sizes.width, depth=sizes.depth, num_heads=sizes.num_heads)
    tokenizer, texts = RandomCodebook(sizes), RandomTexts(sizes)
    with DEVICE:  # a GPU makes random weights faster
        return MuseModule(tokenizer, texts, network).to(DEVICE)


def make_batch(sizes: Sizes, size: int) -> ImageTextBatch:
    """Return random tokens with captions."""
    ids = torch.randint(sizes.codes, (size, sizes.side**2, 1), device=DEVICE)
    samples = tuple(SampleInfo(str(number), "random") for number in range(size))
    return ImageTextBatch(VQTokens(ids, TinyImageTokenizer.codebook), ("an image",) * size, samples)


def train(is_quick: bool) -> None:
    """Emit milliseconds, memory and operations per second of training steps, eager, compiled and checkpointed."""
    sizes = QUICK if is_quick else PAPER
    warnings.filterwarnings("ignore", message="You are trying to .self.log")  # the step runs without a trainer
    module = make_module(sizes).train()
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    emit(parameters=module.num_trainable(), is_fused=optimizer.param_groups[0]["fused"])

    def step(batch: ImageTextBatch) -> None:
        with autocast():
            loss = module.training_step(batch, 0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    with FlopCounterMode(display=False) as counter:
        step(make_batch(sizes, 2))
    flops_per_image = counter.get_total_flops() / 2
    emit(flops_per_image=flops_per_image)

    def measure(batch_size: int) -> dict[str, float]:
        torch.compiler.reset()  # or a second batch size compiles a graph for all sizes
        seconds = seconds_of(partial(step, make_batch(sizes, batch_size)), sizes.rounds)
        rate = batch_size * flops_per_image / seconds
        name = torch.cuda.get_device_name() if HAS_GPU else ""
        figures = {"ms": 1000 * seconds, "gib": peak_gib(), "tflops_per_second": rate / 1e12}
        peaks = [peak for gpu, peak in PEAK_FLOPS.items() if gpu in name]
        return figures | {"mfu": rate / peaks[0]} if peaks else figures

    for size in sizes.train_batches:
        emit_if_it_fits(f"eager_{size}", partial(measure, size))
    largest = max(sizes.train_batches)
    batch = make_batch(sizes, min(sizes.train_batches))
    emit_profile("eager", partial(step, batch), times=3)
    module.network.checkpoint_activations = True
    emit_if_it_fits(f"checkpointed_{largest}", partial(measure, largest))
    module.network.checkpoint_activations = False
    if HAS_GPU:  # on a CPU, compilation takes minutes
        module.network.compile_layers()
        for size in sizes.train_batches:
            emit_if_it_fits(f"compiled_{size}", partial(measure, size))


def sample(is_quick: bool) -> None:
    """Emit images per second of guided sampling: ours, eager and compiled, and that of diffusers."""
    sizes = QUICK if is_quick else PAPER
    module = make_module(sizes).eval()

    def ours(batch_size: int, num_steps: int) -> None:
        settings = MaskGitSampling(num_steps=num_steps, guidance=(3.0, 3.0))
        parts = module.network, module.tokenizer, module.text_encoder
        with torch.no_grad(), autocast():
            sample_image_tokens(*parts, ["an image"] * batch_size, range(batch_size), settings, ConfidenceOrder())

    def measure(generate: Callable[[int, int], object], batch_size: int, num_steps: int) -> dict[str, float]:
        generate(batch_size, 2)  # warms up, and compiles
        seconds = seconds_of(partial(generate, batch_size, num_steps), rounds=1, warmup=0)
        return {"images_per_second": batch_size / seconds * num_steps / sizes.num_steps, "gib": peak_gib()}

    rival = make_diffusers(sizes)
    for size in sizes.sample_batches:
        emit_if_it_fits(f"diffusers_{size}", partial(measure, rival, size, sizes.num_steps // 4))  # all cost the same
    del rival
    for size in sizes.sample_batches[:-1]:  # the largest takes 20 seconds on an H200
        emit_if_it_fits(f"eager_{size}", partial(measure, ours, size, sizes.num_steps))
    emit_profile("eager", partial(ours, min(sizes.sample_batches), 4))
    if HAS_GPU:  # on a CPU, compilation takes minutes
        module.network.compile_layers()
        for size in sizes.sample_batches:
            torch.compiler.reset()
            emit_if_it_fits(f"compiled_{size}", partial(measure, ours, size, sizes.num_steps))


def make_diffusers(sizes: Sizes) -> Callable[[int, int], object]:
    """Return aMUSEd's transformer in the loop of AmusedPipeline, with weights in bfloat16, as a pipeline has them."""
    from diffusers import AmusedScheduler, UVit2DModel

    tiny = {
        "hidden_size": 32, "cond_embed_dim": 16, "encoder_hidden_size": 16, "block_out_channels": 32, "in_channels": 32,
        "block_num_heads": 2, "num_attention_heads": 2, "intermediate_size": 48, "num_hidden_layers": 1,
        "codebook_size": sizes.codes, "vocab_size": sizes.codes + 1, "micro_cond_encode_dim": 4,
        "micro_cond_embed_dim": 20, "sample_size": sizes.side,
    }  # fmt: skip
    with DEVICE:
        network = UVit2DModel(**(tiny if sizes.width < 768 else {"sample_size": sizes.side}))
    dtype = torch.bfloat16 if HAS_GPU else torch.float32
    network.requires_grad_(False).eval().to(DEVICE, dtype)
    words, text_dim = 77, network.config.encoder_hidden_size
    pooled_dim = network.config.cond_embed_dim
    scheduler = AmusedScheduler(mask_token_id=sizes.codes)
    emit(diffusers_parameters=sum(weight.numel() for weight in network.parameters()))

    @torch.no_grad()
    def generate(batch_size: int, num_steps: int) -> None:
        rows = 2 * batch_size
        hidden = torch.randn(rows, words, text_dim, device=DEVICE, dtype=dtype)
        pooled = torch.randn(rows, pooled_dim, device=DEVICE, dtype=dtype)
        conditions = torch.tensor([256.0, 256, 0, 0, 6], device=DEVICE, dtype=dtype).expand(rows, -1)
        ids = torch.full((batch_size, sizes.side, sizes.side), sizes.codes, device=DEVICE)
        scheduler.set_timesteps(num_steps, device=DEVICE)
        for number in scheduler.timesteps:
            null, conditional = network(torch.cat([ids] * 2), hidden, pooled, conditions).chunk(2)
            ids = scheduler.step(null + 3 * (conditional - null), number, ids).prev_sample

    return generate
