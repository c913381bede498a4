"""Cost of the chain in configs/experiments/paper on 8, 64 and 512 GPUs: prints the tables of docs/scaling.md.

Networks of full size are built without memory (torch's meta device). Their parameters, the operations of a forward pass
and the bytes saved for the backward pass are counted; the rest is arithmetic below. ``--check`` measures on this
machine, at small size: operations of a training step, sizes of a checkpoint and of shards, bytes that two processes
send per step with DDP and FSDP2.

The GPU is an assumption: H100 SXM by its data sheet, at 40 % of its peaks.
"""

import argparse
import math
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from diffusers import VQModel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import spawn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, T5Config, T5EncoderModel

from documents import fill
from report import report
from synth2_lightning.io.locations import resolve
from synth2_lightning.nn.gated_attention import GatedCrossAttention
from synth2_lightning.nn.maskgit import MaskGit, TextKeyValues
from synth2_lightning.nn.perceiver import PerceiverResampler

BFLOAT16, FLOAT32 = 0.4 * 989e12, 0.4 * 67e12  # operations per second: 40 % of the peaks of an H100 SXM
MEMORY_BYTES = 3.35e12  # per second, from the memory of an H100 SXM
LINK_BYTES = 50e9  # per second and GPU between machines: a port of 400 Gbit/s each
PAIRS, GLOBAL_BATCH, LOCAL_BATCH = 10_100_000, 512, 64  # the paper's CC12M (as quoted elsewhere); MUSE's batch; ours
TEXT, IMAGE, LATENTS, CAPTION = 64, 256, 64, 80  # tokens of: the generator's text, an image, the resampler, a caption
PHOTO_BYTES, CAPTION_BYTES = 50_000, 200  # a JPEG of 256 pixels; an uncompressed caption of 40 words
TOKEN_BYTES = 2 * IMAGE  # ids of an image
STEPS = 24  # of parallel decoding, each conditional and unconditional
MASKED = round(IMAGE * 2 / math.pi)  # mean of training and decoding: cos(pi u / 2), u uniform, has the mean 2 / pi
TRAIN_STEPS, VALIDATIONS, GENPAIR = 500_000, 50, 1_000_000  # of experiments/paper
VAL_IMAGES, BEAMS = 5_000, 3  # COCO's validation split; beam search of the captioner
KEPT = 3  # checkpoints: the best, and the last two


@dataclass(frozen=True)
class Part:
    """Size of a network, and cost of a forward pass of one pair."""

    name: str
    parameters: int
    forward: float  # operations; a multiplication and an addition are two
    kept: float  # bytes of bfloat16 activations of one pair that are saved for the backward pass
    factor: int  # step over forward pass: 1 frozen, 2 frozen with gradients of inputs, 3 trained; +1 recomputed
    is_trained: bool = False
    is_float32: bool = False  # the VQ-GAN, because rounded features have other codes; all others use bfloat16

    @property
    def seconds(self) -> float:
        """Time of the forward pass of one pair."""
        return self.forward / (FLOAT32 if self.is_float32 else BFLOAT16)


def measure(name: str, network: nn.Module, run: Callable[[], object], factor: int, is_trained: bool = False) -> Part:
    """Return size and cost of a network on the meta device."""
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # holds the storages, so that their addresses are not reused

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor)
    with hooks, FlopCounterMode(display=False) as counter:
        run()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    # With activation checkpointing only the input of each block is saved, which is comparatively small.
    size = sum(storage.nbytes() for storage in kept.values()) if factor == 3 else 0
    return Part(name, parameters, counter.get_total_flops(), size, factor, is_trained)


@dataclass(frozen=True)
class Decoding:
    """Operations of sampling the tokens of one image: text encoder and keys once, each step with and without text."""

    text: float
    step: float

    @property
    def total(self) -> float:
        """Operations per image."""
        return self.text + 2 * STEPS * self.step


def generator_parts() -> tuple[list[Part], Decoding]:
    """Return the components of ``experiments/paper/generator.yaml``, and the cost of sampling with them."""
    with torch.device("meta"):
        network = MaskGit(64, 8192, 1, (16, 16), 1024, width=1280, depth=24, num_heads=20).bfloat16()
        text_encoder = T5EncoderModel(
            T5Config(d_model=1024, d_ff=4096, d_kv=64, num_layers=24, num_heads=16, vocab_size=32128)
        ).bfloat16()
        words = torch.ones(1, TEXT, dtype=torch.long)
        states, mask = torch.zeros(1, TEXT, 1024, dtype=torch.bfloat16), torch.ones(1, TEXT, dtype=torch.bool)
        image, is_masked = torch.zeros(1, IMAGE, 64, dtype=torch.bfloat16), torch.ones(1, IMAGE, dtype=torch.bool)

        def predict(text: TextKeyValues | None = None) -> Tensor:
            hidden_states = network(image, is_masked, text or network.encode_text(states, mask))
            masked = hidden_states[0, :MASKED]  # only masked tokens reach the head
            return network.level_logits(masked, torch.zeros(MASKED, 0, dtype=torch.long))

        t5 = measure("T5-large, encoder", text_encoder, _no_grad(lambda: text_encoder(words)), factor=1)
        trained = measure("masked-token transformer", network, predict, factor=3, is_trained=True)
        known = network.encode_text(states, mask)
        step = measure("decoding", network, _no_grad(lambda: predict(known)), factor=1)
        return [t5, trained], Decoding(t5.forward + trained.forward - step.forward, step.forward)


def captioner_parts() -> list[Part]:
    """Return the components of ``experiments/paper/mixed.yaml``, which trains on image tokens."""
    with torch.device("meta"):
        resampler = PerceiverResampler(LATENTS, depth=6, num_heads=16, width=1024, num_positions=256)
        resampler.build(64, 960)
        gates = nn.ModuleList(GatedCrossAttention(960, 960, 8, 64) for _ in range(8)).bfloat16()
        lm = AutoModelForCausalLM.from_config(
            LlamaConfig(
                hidden_size=960, intermediate_size=2560, num_hidden_layers=32, num_attention_heads=15,
                num_key_value_heads=5, vocab_size=49152, tie_word_embeddings=True,
            )
        ).bfloat16()  # fmt: skip
        resampler.bfloat16()
        image = torch.zeros(1, IMAGE, 64, dtype=torch.bfloat16)
        visual = torch.zeros(1, LATENTS, 960, dtype=torch.bfloat16)
        words = torch.zeros(1, CAPTION, 960, dtype=torch.bfloat16)
        ids = torch.ones(1, CAPTION, dtype=torch.long)
        mask = torch.ones(1, 1, CAPTION, CAPTION, dtype=torch.bool)
        return [
            measure("Perceiver resampler", resampler, lambda: resampler(image), factor=4, is_trained=True),
            measure("gated cross-attention", gates, lambda: [g(words, visual) for g in gates], 4, is_trained=True),
            measure("SmolLM2-360M", lm, _no_grad(lambda: lm(ids, mask, use_cache=False)), factor=3),
        ]


def vqgan_part() -> Part:
    """Return the VQ-GAN, which encodes photos for token shards and in validation."""
    with torch.device("meta"):
        network = VQModel(  # aMUSEd's shape, from memory
            block_out_channels=(128, 256, 256, 512, 768), layers_per_block=2, latent_channels=64,
            num_vq_embeddings=8192, vq_embed_dim=64, down_block_types=("DownEncoderBlock2D",) * 5,
            up_block_types=("UpDecoderBlock2D",) * 5, mid_block_add_attention=False,
        )  # fmt: skip
        image = torch.zeros(1, 3, 256, 256)
        part = measure("VQ-GAN", network, _no_grad(lambda: network.encoder(image)), factor=0)
        return replace(part, is_float32=True)


def _no_grad(run: Callable[[], object]) -> Callable[[], object]:
    return torch.no_grad()(run)


@dataclass(frozen=True)
class Run:
    """A training run: sums over its components."""

    name: str
    parts: list[Part]
    is_averaged: bool  # whether its trainer keeps a moving average of the weights

    @property
    def trained(self) -> int:
        """Number of trained parameters."""
        return sum(part.parameters for part in self.parts if part.is_trained)

    @property
    def frozen_bytes(self) -> int:
        """Bytes of frozen weights."""
        return sum((4 if part.is_float32 else 2) * part.parameters for part in self.parts if not part.is_trained)

    @property
    def step(self) -> float:
        """Operations of a training step per pair."""
        return sum(part.forward * part.factor for part in self.parts)

    @property
    def kept(self) -> float:
        """Bytes of saved activations per pair."""
        return sum(part.kept for part in self.parts)

    @property
    def saved_bytes(self) -> int:
        """Bytes of a checkpoint: weights and two moments in float32, and the average."""
        return (16 if self.is_averaged else 12) * self.trained

    def memory(self, num_gpus: int, is_sharded: bool) -> float:
        """Return the bytes of what a checkpoint has, of gradients, autocast's bfloat16 copies and frozen weights."""
        return (self.saved_bytes + 6 * self.trained) / (num_gpus if is_sharded else 1) + self.frozen_bytes

    def traffic(self, num_gpus: int, is_sharded: bool) -> float:
        """Return the bytes that a GPU sends per step.

        A ring of G GPUs sends 2 (G - 1) / G P to all-reduce P gradients (Patarasuk and Yuan, 2009). Sharded, it
        all-gathers the weights twice, forward and backward, and reduce-scatters the gradients once, (G - 1) / G P each.
        """
        numbers = (num_gpus - 1) / num_gpus * self.trained
        return numbers * (2 * 4 if not is_sharded else 2 * 2 + 4)  # gathered in bfloat16, reduced in float32


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def derive() -> dict[str, str]:
    """Return all tables by name."""
    vqgan = vqgan_part()
    parts, decoding = generator_parts()
    generator = Run("generator", [vqgan, *parts], is_averaged=True)
    captioner = Run("captioner", [vqgan, *captioner_parts()], is_averaged=False)
    both = (generator, captioner)
    rows = [
        (
            f"{run.name}: {part.name}", f"{part.parameters / 1e6:,.1f} M", "yes" if part.is_trained else "no",
            f"{part.forward / 1e9:,.1f}", f"{1e3 * part.seconds:.2f}", part.factor,
            f"{1e3 * part.seconds * part.factor:.2f}",
        )
        for run in both for part in run.parts
    ]  # fmt: skip
    sizes = [
        (
            run.name, f"{run.trained / 1e6:,.1f} M", f"{run.saved_bytes / 1e9:.1f}",
            f"{KEPT * run.saved_bytes / 1e9:.1f}",
            f"{run.memory(1, False) / 1e9:.1f}", *(f"{run.memory(gpus, True) / 1e9:.1f}" for gpus in (8, 64, 512)),
            f"{LOCAL_BATCH * run.kept / 1e9:.1f}" if run.kept else "checkpointed",
        )
        for run in both
    ]  # fmt: skip
    saturation = [
        (
            run.name,
            f"{GLOBAL_BATCH * run.step / BFLOAT16 / (8 * run.trained / LINK_BYTES):,.0f}",
            f"{8 * run.trained / LINK_BYTES * BFLOAT16 / run.step:,.1f}",
        )
        for run in both
    ]
    step = [
        "",
        "global batch",
        "compute, ms",
        "DDP sends",
        "FSDP2 sends",
        "pairs/s",
        "hours for 10.1 M",
        "tokens, MB/s",
    ]
    size_columns = [
        "",
        "trained",
        "checkpoint, GB",
        f"{KEPT} are kept, GB",
        "DDP, GB",
        "FSDP2, 8 GPUs, GB",
        "64 GPUs",
        "512 GPUs",
    ]
    return {
        "parts": table(
            ("component", "parameters", "trained", "forward, GFLOP", "forward, ms", "factor", "step, ms"), rows
        ),
        "sizes": table([*size_columns, "activations, GB"], sizes),
        "weak": table(step, [_step(run, gpus, LOCAL_BATCH) for run in both for gpus in (8, 64, 512)]),
        "strong": table(step, [_step(run, gpus, GLOBAL_BATCH / gpus) for run in both for gpus in (8, 64, 512)]),
        "saturation": table(("", "max. GPUs for a batch of 512", "min. pairs per GPU"), saturation),
        "chain": table(("command", "work", "GPU hours", "writes, GB"), _chain(vqgan, decoding, generator, captioner)),
        "data": table(
            ("pairs", "tokens, GB", "captions, GB", "JPEGs, GB", "embeddings, GB", "shuffled order, GB per rank"),
            [
                (
                    f"{millions} M",
                    f"{millions * TOKEN_BYTES / 1e3:.1f}",
                    f"{millions * CAPTION_BYTES / 1e3:.1f}",
                    f"{millions * PHOTO_BYTES / 1e3:,.0f}",
                    f"{millions * IMAGE * 64 * 2 / 1e3:,.0f}",
                    f"{millions * 8 / 1e3:.2f}",
                )
                for millions in (1, 10, 100)
            ],
        ),
    }


def _step(run: Run, gpus: int, local: float) -> tuple[str, ...]:
    compute = local * run.step / BFLOAT16
    sent = [run.traffic(gpus, is_sharded) for is_sharded in (False, True)]
    pairs = gpus * local / max(compute, sent[0] / LINK_BYTES)
    return (
        f"{run.name}, {gpus} GPUs", f"{gpus * local:,.0f}", f"{compute * 1e3:,.1f}",
        *(f"{each / 1e9:.2f} GB, {each / LINK_BYTES * 1e3:.0f} ms" for each in sent),
        f"{pairs:,.0f}", f"{PAIRS / pairs / 3600:.3f}", f"{pairs / gpus * 8 * TOKEN_BYTES / 1e6:.1f}",
    )  # fmt: skip


def _chain(vqgan: Part, decoding: Decoding, generator: Run, captioner: Run) -> list[tuple[str, ...]]:
    """Return the commands of ``experiments/paper/README.md``, on eight GPUs."""
    encode, sample = vqgan.seconds, decoding.total / BFLOAT16  # seconds per image
    pairs = TRAIN_STEPS * GLOBAL_BATCH
    validated = VALIDATIONS * VAL_IMAGES
    # Each token of a beam search reads the weights of the language model, for a batch of 64 images.
    weights = 2 * sum(part.parameters for part in captioner.parts[1:])
    caption = max(BEAMS * CAPTION * weights / BFLOAT16, CAPTION * weights / MEMORY_BYTES / LOCAL_BATCH)
    exported = 2 * generator.trained / 1e9  # in half precision
    rows = [
        ("`tokenize.yaml`", f"{PAIRS:,} photos", PAIRS * encode, PAIRS * (TOKEN_BYTES + CAPTION_BYTES) / 1e9),
        (
            "`generator.yaml`",
            f"{pairs:,} pairs",
            pairs * generator.step / BFLOAT16,
            KEPT * generator.saved_bytes / 1e9 + exported,
        ),
        ("its validation", f"{validated:,} images sampled", validated * (encode + sample), 0.0),
        ("`synthesize.yaml`", f"{GENPAIR:,} captions", GENPAIR * sample, GENPAIR * (TOKEN_BYTES + CAPTION_BYTES) / 1e9),
        (
            "`real.yaml`, `mixed.yaml`, each",
            f"{pairs:,} pairs",
            pairs * captioner.step / BFLOAT16,
            KEPT * captioner.saved_bytes / 1e9,
        ),
        ("its validation", f"{validated:,} photos captioned", validated * (encode + caption), 0.0),
    ]
    return [(name, work, f"{seconds / 3600:,.1f}", f"{size:.1f}") for name, work, seconds, size in rows]


def closed_form(width: int, depth: int, text_dim: int, tokens: int, words: int, dim: int, codes: int) -> float:
    """Return the operations of a forward pass of MaskGit over one image with logits of all tokens.

    Per token and layer: 8 W^2 for the projections of self-attention, 4 N W for its scores and values, 4 W^2 and 4 T W
    for cross-attention, 16 W^2 for the MLP; per word and layer 4 D W; for input and output 2 W (dim + codes) per token.
    """
    per_layer = tokens * (28 * width**2 + 4 * width * (tokens + words)) + words * 4 * text_dim * width
    return depth * per_layer + tokens * 2 * width * (dim + codes)


def check_operations() -> dict[str, float]:
    """Return the counted forward pass over the closed form, and a counted training step over the forward pass."""
    network = MaskGit(32, 512, 1, (8, 8), 128, width=192, depth=4, num_heads=6)
    text, mask = torch.randn(2, 16, 128), torch.ones(2, 16, dtype=torch.bool)
    image, is_masked = torch.randn(2, 64, 32), torch.ones(2, 64, dtype=torch.bool)

    def predict() -> Tensor:
        states = network(image, is_masked, network.encode_text(text, mask))
        return network.level_logits(states.flatten(0, 1), torch.zeros(128, 0, dtype=torch.long))

    with FlopCounterMode(display=False) as forward:
        loss = predict().square().mean()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    expected = 2 * closed_form(192, 4, 128, 64, 16, 32, 512)
    steps = (forward.get_total_flops() + backward.get_total_flops()) / forward.get_total_flops()
    return {"forward_over_closed_form": forward.get_total_flops() / expected, "step_over_forward": steps}


def check_sizes() -> dict[str, float]:
    """Return bytes per parameter of a checkpoint with averaged weights and Adam's state, and per pair of shards."""
    network = MaskGit(32, 512, 1, (8, 8), 128, width=192, depth=4, num_heads=6)
    optimizer = torch.optim.AdamW(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        averages = {name: weight.clone() for name, weight in network.state_dict().items()}
        state = {"state_dict": averages, "current_model_state": network.state_dict()}
        torch.save(state | {"optimizer": optimizer.state_dict()}, path)
        size = path.stat().st_size
    (part,) = resolve("package://synth2_lightning/scenes/shards", "shards").glob("*.parquet")
    rows = pq.read_metadata(part).num_rows
    return {
        "checkpoint_bytes_per_parameter": size / parameters,
        "shard_bytes_per_pair": part.stat().st_size / rows,
        "of_which_token_ids": 2 * 64,
    }


def check_traffic() -> dict[str, float]:
    """Return the bytes that two gloo processes send over the loopback, relative to the formulas."""
    figures = {}
    for name, times in (("ddp", 2), ("fsdp2", 3), ("reduce_scatter", 1)):
        with tempfile.TemporaryDirectory() as folder:
            spawn(_send, (name, folder), nprocs=2)
            sent, parameters = torch.load(Path(folder) / "sent", weights_only=True)
        figures[f"{name}_bytes_over_formula"] = sent / (4 * parameters * times)  # of both processes, in float32
    return figures


def _send(rank: int, name: str, folder: str) -> None:
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(0)
    network: nn.Module = nn.Sequential(*(nn.Linear(1024, 1024, bias=False) for _ in range(8)))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if name == "ddp":
        network = nn.parallel.DistributedDataParallel(network)
    elif name == "fsdp2":
        mesh = init_device_mesh("cpu", (2,))
        for block in network.children():
            fully_shard(block, mesh=mesh)
        fully_shard(network, mesh=mesh)
    steps = 5
    for step in range(steps + 1):
        if step == 1:  # the first step builds buckets
            dist.barrier()
            before = _loopback_bytes()
        if name == "reduce_scatter":  # measured separately: gloo has none of its own
            dist.reduce_scatter_tensor(torch.empty(parameters // 2), torch.ones(parameters))
        else:
            network(torch.randn(4, 1024)).square().mean().backward()
    dist.barrier()
    if rank == 0:
        torch.save(((_loopback_bytes() - before) / steps, parameters), Path(folder) / "sent")
    dist.destroy_process_group()


def _loopback_bytes() -> int:
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split()[1])


def main() -> None:
    """Print the tables, and with ``--check`` the measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="measure the terms at small size on this machine")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the tables into a document")
    args = parser.parse_args()
    tables = derive()
    for name, text in tables.items():
        print(f"\n### {name}\n\n{text}")
    if args.write:
        args.write.write_text(fill(args.write.read_text("utf-8"), tables), "utf-8")
    figures = check_operations() | check_sizes() | check_traffic() if args.check else {}
    report("scaling", figures.get("forward_over_closed_form", float("nan")), **figures)


if __name__ == "__main__":
    main()
