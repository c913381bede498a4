"""Throughput of MuseGenerator in images per second, against two generators of the same size and against bare matmuls.

Ours is :class:`~synth2_lightning.generators.muse.MuseGenerator` with the sampling of ``configs/synthesize.yaml``, and,
as ``ours_full``, the same steps with all tokens and guidance computed in each of them. Baselines: diffusers'
UVit2DModel in the loop of AmusedPipeline with its scheduler (aMUSEd with a quarter of every width), and
muse-maskgit-pytorch's ``MaskGit.generate``. All generate 16 x 16 tokens of 8,192 codes in the same number of steps,
with guidance, from 77 precomputed text embeddings of width 768, with random weights in the same precision and numbers
of parameters within 5 %. They alternate in one process; ratios are medians over the rounds. Architectures differ in
operations per parameter, so the FLOPs per image are reported as well. ``read_back.py`` measures what the work that is
left out does to the tokens.

``matmul_fraction`` compares ours with bare ``torch.matmul`` calls of the same sizes and number: FLOP/s of ``generate``
over FLOP/s of these calls. ``operations`` are the fractions of the time of ours in the operations that take most of it.

    python benchmarks/generate.py --quick
    python benchmarks/generate.py --threads 2 --dtype bfloat16
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from math import prod
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor, nn
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode

from report import report
from synth2_lightning.cli.run_files import run_file_folder
from synth2_lightning.generators.muse import MuseGenerator, save_generator
from synth2_lightning.interfaces import TextEncoder
from synth2_lightning.nn.maskgit import MaskGit
from synth2_lightning.nn.parallel_decoding import MaskGitSampling
from synth2_lightning.testing import TinyImageTokenizer

SIDE, CODES, CODE_DIM = 16, 8192, 64
TEXT_LENGTH, TEXT_DIM = 77, 768  # of CLIP's text encoder, as in aMUSEd
HEAD_DIM = 64
TOLERANCE = 0.05  # of the number of parameters

Generate = Callable[[int], object]
"""Generates a number of images."""


class Size(NamedTuple):
    """Size of the networks; the last two make the numbers of parameters nearly equal.

    Args:
        width: Width of ours and of muse-maskgit-pytorch's; twice that of diffusers'.
        diffusers_mlp: Inner width of the MLPs of diffusers', in quarters of its width.
        muse_depth: Layers of muse-maskgit-pytorch's; ours has 8.
    """

    width: int = 512
    diffusers_mlp: int = 11
    muse_depth: int = 7


def read_sampling() -> MaskGitSampling:
    """Return the sampling of the run file of synthesis."""
    run = yaml.safe_load((run_file_folder() / "synthesize.yaml").read_text())
    sampling = run["model"]["init_args"]["generator"]["init_args"]["sampling"]
    arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in sampling.items()}
    return MaskGitSampling(**arguments)


class RandomCodebook(TinyImageTokenizer):
    """Random codes in the size of a VQ-GAN's."""

    num_tokens, codebook_size, embed_dim = SIDE * SIDE, CODES, CODE_DIM

    def __init__(self) -> None:
        super().__init__()
        self.vectors = torch.randn(CODES, CODE_DIM)


class PreparedText(TextEncoder):
    """Precomputed text embeddings."""

    name, embed_dim = "prepared", TEXT_DIM

    def __init__(self, embeddings: Tensor) -> None:
        super().__init__()
        self.embeddings = embeddings

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the precomputed embeddings."""
        embeddings = self.embeddings[: len(texts)]
        return embeddings, torch.ones(embeddings.shape[:2], dtype=torch.bool)


def make_ours(text: Tensor, folder: Path, size: Size, sampling: MaskGitSampling) -> tuple[Generate, nn.Module]:
    """Return our generator, saved and loaded."""
    tokenizer, text_encoder = RandomCodebook(), PreparedText(text)
    num_heads = size.width // HEAD_DIM
    network = MaskGit(CODE_DIM, CODES, 1, (SIDE, SIDE), TEXT_DIM, width=size.width, depth=8, num_heads=num_heads)
    save_generator(folder, network, text_encoder, tokenizer.codebook)
    generator = MuseGenerator(str(folder), tokenizer, text_encoder, sampling)
    generator.load()
    generator.to(text.dtype)
    return lambda num: generator.generate(["an image"] * num, range(num)), generator.network


def make_diffusers(text: Tensor, size: Size, sampling: MaskGitSampling) -> tuple[Generate, nn.Module]:
    """Return a small version of aMUSEd's transformer, in the loop of its pipeline."""
    from diffusers import AmusedScheduler, UVit2DModel

    width, guidance = size.width // 2, 1 + sampling.guidance[0]
    network = UVit2DModel(
        hidden_size=width,
        cond_embed_dim=TEXT_DIM,
        encoder_hidden_size=TEXT_DIM,
        in_channels=width * 3 // 4,
        block_out_channels=width * 3 // 4,
        block_num_heads=3,
        num_attention_heads=width // HEAD_DIM,
        intermediate_size=width * size.diffusers_mlp // 4,
        sample_size=SIDE,
    )
    network.requires_grad_(False).eval().to(text.dtype)
    scheduler = AmusedScheduler(mask_token_id=CODES)
    pooled = torch.randn(TEXT_DIM, dtype=text.dtype)
    conditions = torch.tensor([256.0, 256, 0, 0, 6], dtype=text.dtype)

    @torch.no_grad()
    def generate(num: int) -> Tensor:
        hidden = torch.cat([torch.zeros_like(text[:num]), text[:num]])
        others = pooled.expand(2 * num, -1), conditions.expand(2 * num, -1)
        ids = torch.full((num, SIDE, SIDE), CODES)
        scheduler.set_timesteps(sampling.num_steps)
        for step in scheduler.timesteps:
            logits = network(torch.cat([ids] * 2), hidden, *others)
            null, conditional = logits.chunk(2)
            ids = scheduler.step(null + guidance * (conditional - null), step, ids).prev_sample
        return ids

    return generate, network


def make_muse_maskgit(text: Tensor, size: Size, sampling: MaskGitSampling) -> tuple[Generate, nn.Module]:
    """Return muse-maskgit-pytorch's generator; its VQ-GAN returns the ids instead of pixels."""
    from muse_maskgit_pytorch import MaskGit as BaselineMaskGit
    from muse_maskgit_pytorch import MaskGitTransformer, VQGanVAE, muse_maskgit_pytorch, t5
    from transformers import T5Config

    muse_maskgit_pytorch.tqdm = lambda steps, total: steps  # no progress bar
    t5.T5_CONFIGS["prepared"] = {"config": T5Config(d_model=TEXT_DIM)}
    network: Any = MaskGitTransformer(
        num_tokens=CODES,
        seq_len=SIDE * SIDE,
        dim=size.width,
        depth=size.muse_depth,
        heads=size.width // HEAD_DIM,
        t5_name="prepared",
        flash=False,  # its CPU flash attention is in Python, is slower in float32, and does not support bfloat16
    )
    network.encode_text = lambda texts: text[: len(texts)]
    network.self_cond_to_init_embed = nn.Identity()  # unused without self-conditioning
    vae = VQGanVAE(dim=16, layers=4, codebook_size=CODES, use_vgg_and_gan=False)
    baseline: Any = BaselineMaskGit(image_size=16 * SIDE, transformer=network, vae=vae)
    baseline.vae.decode_from_ids = lambda ids: ids
    baseline.requires_grad_(False).eval().to(text.dtype)
    arguments = {"timesteps": sampling.num_steps, "cond_scale": 1 + sampling.guidance[0]}
    return lambda num: baseline.generate(["an image"] * num, **arguments), network


class MatmulSizes(TorchDispatchMode):
    """Counts matmuls by ``(batch, rows, inner, columns)`` and dtype."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[tuple[int, int, int, int, torch.dtype]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation and run it."""
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm", "addmm", "baddbmm"):
            left, right = args[-2:]
            self._count(left.shape, right.shape[-1], left.dtype)
        elif name.startswith("_scaled_dot_product"):
            queries, keys = args[:2]
            scores = *queries.shape[:-1], keys.shape[-2]
            self._count(queries.shape, keys.shape[-2], queries.dtype)
            self._count(scores, queries.shape[-1], queries.dtype)
        elif name == "convolution":  # all have stride 1 here
            images, kernels = args[:2]
            rows = len(images) * prod(images.shape[2:])
            self._count((rows, prod(kernels.shape[1:])), len(kernels), images.dtype)
        return func(*args, **(kwargs or {}))

    def _count(self, left: Sequence[int], columns: int, dtype: torch.dtype) -> None:
        *batch, rows, inner = left
        self.counts[prod(batch), rows, inner, columns, dtype] += 1

    @property
    def flops(self) -> int:
        """Number of operations; a multiplication and an addition are two."""
        return sum(2 * prod(size) * count for (*size, _), count in self.counts.items())

    def bare(self) -> Callable[[], None]:
        """Return a loop of the same matmuls with preallocated operands and results."""
        operands = []
        for (batch, rows, inner, columns, dtype), count in self.counts.items():
            left, right = torch.randn(batch, rows, inner).to(dtype), torch.randn(batch, inner, columns).to(dtype)
            if batch == 1:
                left, right = left[0], right[0]
            operands.append((left, right, left @ right, count))

        def run() -> None:
            for left, right, out, count in operands:
                for _ in range(count):
                    torch.matmul(left, right, out=out)

        return run


def count_matmuls(generate: Generate, num_images: int) -> MatmulSizes:
    """Generate once and count the matmuls."""
    sizes = MatmulSizes()
    with sizes:
        generate(num_images)
    return sizes


def profile_operations(generate: Generate, num_images: int, num_operations: int = 8) -> dict[str, float]:
    """Return the operations that take most of the time, without the operations that they call, and their fractions."""
    with profile() as profiled:
        generate(num_images)
    averages = profiled.key_averages()
    total = sum(each.self_cpu_time_total for each in averages)
    longest = sorted(averages, key=lambda each: -each.self_cpu_time_total)[:num_operations]
    return {each.key.removeprefix("aten::"): round(each.self_cpu_time_total / total, 3) for each in longest}


def race(runners: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> list[dict[str, float]]:
    """Run all in turn; return the seconds of each in every round."""
    times = []
    for _ in range(rounds):
        seconds = {}
        for name, runner in runners.items():
            start = clock()
            runner()
            seconds[name] = clock() - start
        times.append(seconds)
    return times


def check_sizes(networks: dict[str, nn.Module]) -> dict[str, int]:
    """Return the numbers of parameters.

    Raises:
        ValueError: If the number of a baseline differs from ours by more than the tolerance.
    """
    sizes = {name: sum(weight.numel() for weight in network.parameters()) for name, network in networks.items()}
    if any(abs(size / sizes["ours"] - 1) > TOLERANCE for size in sizes.values()):
        raise ValueError(f"Numbers of parameters: {sizes}; expected a difference of {TOLERANCE:.0%} at most from ours.")
    return sizes


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half the width, one image instead of three, one round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of weights and states")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    batch, rounds, size = (1, 1, Size(256, 15, 8)) if args.quick else (3, 2, Size())
    text = torch.randn(batch, TEXT_LENGTH, TEXT_DIM, dtype=getattr(torch, args.dtype))
    sampling = read_sampling()
    with TemporaryDirectory() as folder:
        made = {
            "ours": make_ours(text, Path(folder), size, sampling),
            "ours_full": make_ours(text, Path(folder), size, replace(sampling, full_every=1, guidance_every=1)),
            "diffusers": make_diffusers(text, size, sampling),
            "muse_maskgit": make_muse_maskgit(text, size, sampling),
        }
    parameters = check_sizes({name: network for name, (_, network) in made.items()})
    # CPU time excludes other processes on the same cores, but sums over threads.
    clock = time.process_time if args.threads == 1 else time.perf_counter
    generators = {name: generate for name, (generate, _) in made.items()}
    # This also warms up. The baselines' matmuls per image do not depend on the number of images.
    counted = {name: batch if name.startswith("ours") else 1 for name in generators}
    matmuls = {name: count_matmuls(generate, counted[name]) for name, generate in generators.items()}
    runners: dict[str, Callable[[], object]] = {name: partial(generate, batch) for name, generate in generators.items()}
    times = race(runners | {"matmul": matmuls["ours"].bare()}, rounds, clock)
    seconds = {name: median(row[name] for row in times) for name in times[0]}
    ratios = {
        f"ratio{suffix}_{name}": round(median(row[name] / row[f"ours{suffix}"] for row in times), 3)
        for suffix in ("", "_full")
        for name in ("diffusers", "muse_maskgit")
    }
    report(
        "generate",
        min(ratios["ratio_diffusers"], ratios["ratio_muse_maskgit"]),
        **ratios,
        matmul_fraction=round(median(row["matmul"] / row["ours"] for row in times), 3),
        **{f"{name}_images_per_second": round(batch / seconds[name], 4) for name in made},
        ours_gflops_per_second=round(matmuls["ours"].flops / seconds["ours"] / 1e9, 1),
        matmul_gflops_per_second=round(matmuls["ours"].flops / seconds["matmul"] / 1e9, 1),
        **{f"{name}_gflops_per_image": round(sizes.flops / counted[name] / 1e9, 1) for name, sizes in matmuls.items()},
        **{f"{name}_parameters": number for name, number in parameters.items()},
        operations=profile_operations(generators["ours"], batch),
        sampling=asdict(sampling),
        batch=batch,
        rounds=rounds,
        threads=args.threads,
        dtype=args.dtype,
        clock=clock.__name__,
    )


if __name__ == "__main__":
    main()
