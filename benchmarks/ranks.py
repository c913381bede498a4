"""Equality of losses and CIDEr over 1, 2 and 4 processes (gloo) with the same global batch.

Every case is a tiny captioner on Scenes with a synthetic fraction, a strategy, and dataset sizes: also sizes that no
number of ranks divides, and fewer images than ranks. Its encoder is a vision transformer if no pair is synthetic, else
a VQ-GAN. Each number of processes runs all cases one after the other in one process group, with a timeout: different
control flow on a rank would deadlock. Computations are in float64; losses are logged in float32, with rounding errors
up to 5e-7.
"""

import argparse
import multiprocessing
import os
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any

GLOBAL_BATCH = 8
NUM_STEPS = 20
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Case:
    """One run: synthetic fraction, number of validation and training images, strategy."""

    fraction: float
    num_val: int
    num_train: int
    strategy: str

    def __str__(self) -> str:
        """Return the label in the table."""
        sizes = f"train {self.num_train:>2}, val {self.num_val:>2}"
        return f"{self.strategy:<4}  {self.fraction:>4.0%} synthetic, {sizes}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results of a run: the loss of every step, the validation loss, and CIDEr."""

    losses: tuple[float, ...]
    val_loss: float
    cider: float


def list_cases(strategies: Sequence[str] = ("ddp", "fsdp")) -> list[Case]:
    """Return all strategies and fractions, on even sets, uneven sets, and sets smaller than the number of ranks."""
    sizes = [(8, 32), (13, 19), (3, 3)]
    return [
        Case(fraction, num_val, num_train, strategy)
        for strategy in strategies
        for fraction in (0.0, 0.5, 1.0)
        for num_val, num_train in sizes
    ]


def run_case(case: Case, num_ranks: int, folder: Path) -> Outcome:
    """Train and validate on this rank."""
    from lightning.pytorch import Callback, Trainer, seed_everything

    from synth2_lightning.callbacks.cider import CiderCallback

    class Losses(Callback):
        """Records the loss of every step."""

        def __init__(self) -> None:
            self.losses: list[float] = []

        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            """Record the loss."""
            self.losses.append(float(trainer.callback_metrics["train/loss"]))

    seed_everything(0, verbose=False)
    recorded = Losses()
    trainer = Trainer(
        accelerator="cpu",
        devices=num_ranks,
        strategy=make_strategy(case.strategy, num_ranks),
        max_steps=NUM_STEPS,
        max_epochs=NUM_STEPS,
        val_check_interval=NUM_STEPS,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=1,
        callbacks=[recorded, CiderCallback(str(folder))],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    encoder = make_tokenizer() if case.fraction else make_vision_transformer(folder)
    trainer.fit(make_module(encoder), make_data(case, num_ranks))
    metrics = trainer.callback_metrics
    return Outcome(tuple(recorded.losses), float(metrics["val/loss"]), float(metrics["val/cider"]))


def make_strategy(name: str, num_ranks: int) -> Any:
    """Return DDP or FSDP2; no strategy for one process."""
    from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

    if num_ranks == 1:
        return "auto"
    return DDPStrategy() if name == "ddp" else ModelParallelStrategy(num_ranks, 1, save_distributed_checkpoint=False)


def make_tokenizer() -> Any:
    """Return the VQ-GAN of Scenes."""
    from synth2_lightning.encoders.vqgan import VQGANTokenizer

    return VQGANTokenizer("package://synth2_lightning/scenes/tokenizer")


def make_vision_transformer(folder: Path) -> Any:
    """Return an encoder whose blocks FSDP2 shards, with the same random weights on every rank."""
    import timm
    import torch
    from safetensors.torch import save_file

    from synth2_lightning.encoders.timm import TimmEncoder

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(timm.create_model("test_vit").state_dict(), folder / "vit.safetensors")
    return TimmEncoder("test_vit", str(folder / "vit.safetensors"), image_size=64)


def make_module(encoder: Any) -> Any:
    """Return a tiny captioner."""
    from torch.optim import AdamW

    from synth2_lightning.decoders.language_model import NewLanguageModel
    from synth2_lightning.decoders.prefix import PrefixDecoder
    from synth2_lightning.modules.captioning import VisionLanguageModule
    from synth2_lightning.nn.perceiver import PerceiverResampler
    from synth2_lightning.types import GenerationSettings

    config = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    no_dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return VisionLanguageModule(
        encoder,
        PerceiverResampler(num_latents=2, depth=1, num_heads=2, head_dim=8, num_positions=encoder.num_tokens),
        PrefixDecoder(NewLanguageModel(config | no_dropout, "package://synth2_lightning/scenes/vocabulary")),
        GenerationSettings(num_beams=2, max_new_tokens=12),
        partial(AdamW, lr=0.02),
    )


def make_data(case: Case, num_ranks: int) -> Any:
    """Return rendered images and the included shards, with the global batch divided among the ranks."""
    from synth2_lightning.datamodules.fraction import ConstantFraction
    from synth2_lightning.datamodules.mixed import MixedDataModule
    from synth2_lightning.datamodules.real import RealDataModule
    from synth2_lightning.datamodules.synthetic import SyntheticDataModule
    from synth2_lightning.scenes.source import ScenesSource

    train, val = ScenesSource("train", case.num_train), ScenesSource("val", case.num_val)
    real = RealDataModule(train, val, val_batch_size=GLOBAL_BATCH // num_ranks, image_size=64, num_workers=0)
    synthetic = SyntheticDataModule("package://synth2_lightning/scenes/shards", limit=case.num_train)
    batch_size = GLOBAL_BATCH // num_ranks
    return MixedDataModule(real, synthetic, batch_size, ConstantFraction(case.fraction), num_workers=0)


def work(rank: int, num_ranks: int, port: int, cases: Sequence[Case], results: Any) -> None:
    """Run all cases as one rank, with the environment of torchrun."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks, "LOCAL_WORLD_SIZE": num_ranks, "GROUP_RANK": 0}
    os.environ |= {name: str(value) for name, value in names.items()}
    if num_ranks > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "ranks"}
    warnings.simplefilter("ignore")
    import logging

    import torch

    torch.set_default_dtype(torch.float64)  # training would amplify rounding differences of float32
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases):
            outcome = run_case(case, num_ranks, Path(folder) / str(number))
            if rank == 0:
                results.put(outcome)


def run_ranks(num_ranks: int, cases: Sequence[Case], timeout: float) -> list[Outcome]:
    """Run all cases on a number of processes; return the outcomes up to the first timeout or failure.

    Args:
        num_ranks: Number of processes.
        cases: Cases, run one after the other.
        timeout: Seconds per case; startup has three times as many.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["synth2_lightning.modules.captioning", "synth2_lightning.datamodules.mixed"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    results = context.Queue()
    ranks = [
        context.Process(target=work, args=(rank, num_ranks, port, cases, results), daemon=True)
        for rank in range(num_ranks)
    ]
    for process in ranks:
        process.start()
    outcomes: list[Outcome] = []
    deadline = time.monotonic() + 3 * timeout
    while len(outcomes) < len(cases) and time.monotonic() < deadline:
        try:
            outcomes.append(results.get(timeout=0.5))
            deadline = time.monotonic() + timeout
        except Empty:
            if any(process.exitcode for process in ranks):
                break
    if len(outcomes) < len(cases):
        codes = ", ".join("running" if code is None else str(code) for code in (rank.exitcode for rank in ranks))
        print(f"{cases[len(outcomes)]} on {num_ranks} processes did not finish; exit codes: {codes}", file=sys.stderr)
    for process in ranks:
        process.join(timeout=10 if len(outcomes) == len(cases) else 0)
        process.kill()
    return outcomes


def compare(one: Outcome, many: Outcome) -> tuple[float, float]:
    """Return the largest difference of losses, and the difference of CIDEr."""
    pairs = [*zip(one.losses, many.losses, strict=True), (one.val_loss, many.val_loss)]
    return max(abs(first - second) for first, second in pairs), abs(one.cider - many.cider)


def main() -> None:
    """Run all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4], help="numbers of processes to compare with one")
    parser.add_argument("--timeout", type=float, default=120, help="seconds per case")
    parser.add_argument("--quick", action="store_true", help="two processes, a few cases")
    args = parser.parse_args()
    cases = list_cases()[::5] if args.quick else list_cases()
    ranks = [2] if args.quick else args.ranks
    single = run_ranks(1, cases, args.timeout)
    if len(single) < len(cases):
        sys.exit(1)  # there is nothing to compare with
    many = {number: run_ranks(number, cases, args.timeout) for number in ranks}
    print(f"{'case':<42}{'loss':>8}{'CIDEr':>8}" + "".join(f"{f'{number} ranks: loss, CIDEr':>26}" for number in ranks))
    differences = []
    for number, case in enumerate(cases):
        row = f"{case!s:<42}{single[number].losses[-1]:>8.4f}{single[number].cider:>8.4f}"
        for outcomes in many.values():
            if number < len(outcomes):
                differences.append(compare(single[number], outcomes[number]))
                row += f"{'difference ' + ', '.join(f'{value:.1e}' for value in differences[-1]):>26}"
            else:
                row += f"{'did not finish':>26}"
        print(row)
    num_runs = len(cases) * len(ranks)
    worst = max((loss for loss, _ in differences), default=float("nan"))
    print(f"{len(differences)} of {num_runs} runs on several processes finished; losses differ by at most {worst:.1e}")
    is_equal = len(differences) == num_runs and all(loss <= TOLERANCE and not cider for loss, cider in differences)
    sys.exit(0 if is_equal else 1)


if __name__ == "__main__":
    main()
