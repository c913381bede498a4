"""Two processes over gloo: run files train under DDP and FSDP2, with the scores of one process."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

TINY = Path(__file__).parents[1] / "configs" / "tiny.yaml"

TWO = ("--config", "overlays/strategy/ddp.yaml", "--trainer.devices=2")
FEW_IMAGES = tuple(
    f"--data.init_args.{few}"
    for few in (
        "batch_size=8",
        "val_batch_size=8",
        "train.init_args.num_images=128",
        "val.init_args.num_images=16",
        "num_workers=0",
    )
)


def run(folder: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command in a folder, as a user does; Lightning starts the ranks."""
    return subprocess.run(
        [sys.executable, "-m", "synth2_lightning", *words],
        cwd=folder, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]), "OMP_NUM_THREADS": "1",
                         "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def synth2(folder: Path, *words: str) -> str:
    """Run a command that succeeds."""
    finished = run(folder, *words, SYNTH2_TRACEBACK="1")
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-4000:]
    return finished.stdout


def card_of(folder: Path, pattern: str) -> dict[str, object]:
    (path,) = folder.rglob(pattern)
    card: dict[str, object] = json.loads(path.read_text())
    return card


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(TWO, id="ddp"),
        pytest.param(("--config", "overlays/strategy/fsdp.yaml"), id="fsdp", marks=pytest.mark.long),
    ],
)
def test_two_processes_train_mixed_and_score_like_one(strategy: tuple[str, ...], tmp_path: Path) -> None:
    photos = "--data.init_args.real.init_args"
    few = ("--config", str(TINY), f"{photos}.train.init_args.num_images=128", f"{photos}.val.init_args.num_images=75")
    common = ("--config", "mixed.yaml", *few)
    small = ("--data.init_args.batch_size=8", f"{photos}.val_batch_size=16")
    synth2(tmp_path, "fit", *common, *small, *strategy, "--trainer.max_steps=4", "--trainer.val_check_interval=4")
    checkpoint = next(tmp_path.rglob("last.ckpt"))

    cards = []
    for name, ranks in (("two", strategy), ("one", ())):
        (tmp_path / name).mkdir()
        synth2(tmp_path / name, "validate", *common, *small, *ranks, f"--ckpt_path={checkpoint}")
        cards.append(card_of(tmp_path / name, "cider/*/protocol.json"))
    two, one = cards
    # 75 images over two ranks: the sampler repeats one of them, which must count once.
    assert two["num_images"] == one["num_images"] == 75
    assert two["num_repeated_keys_dropped"] == 1
    assert two["score"] == pytest.approx(one["score"], abs=1e-9)
    fitted = card_of(tmp_path / "runs", "cider/val-step=4/protocol.json")
    assert two["score"] == pytest.approx(fitted["score"], abs=1e-9)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_generator_learns_the_same_on_one_process_and_under_ddp_and_fsdp(tmp_path: Path) -> None:
    few = (*FEW_IMAGES, "--trainer.precision=32-true", "--trainer.val_check_interval=2")
    callbacks = (
        "{class_path: synth2_lightning.callbacks.weight_averaging.WeightAveragingCallback, init_args: {fraction: 0.5}}",
        "{class_path: synth2_lightning.callbacks.generated_samples.GeneratedSamplesCallback}",
        "{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {save_last: true}}",
    )
    # SGD, so that wrong or unreduced gradients change the weights.
    optimizer = "{class_path: torch.optim.SGD, init_args: {lr: 0.5, momentum: 0.5}}"
    words = [
        "fit",
        "--config",
        "generator.yaml",
        "--config",
        str(TINY),
        f"--trainer.callbacks=[{', '.join(callbacks)}]",
    ]
    words += [f"--model.init_args.optimizer={optimizer}", "--model.init_args.lr_scheduler=null", *few]
    found: dict[str, list[dict[str, Any]]] = {}
    strategies = {
        "one": ("--data.init_args.batch_size=16",),  # twice as many, the same total batch
        "ddp": TWO,
        "fsdp": ("--config", "overlays/strategy/fsdp.yaml"),
    }
    for name, strategy in strategies.items():
        folder = tmp_path / name
        folder.mkdir()
        synth2(folder, *words, *strategy, "--trainer.max_steps=4")
        checkpoint, exported = (next(folder.rglob(file)) for file in ("last.ckpt", "generator.safetensors"))
        synth2(folder, *words, *strategy, "--trainer.max_steps=6", f"--ckpt_path={checkpoint}")
        files = (checkpoint, next(folder.glob("runs/version_1/checkpoints/last.ckpt")))
        found[name] = [torch.load(file, weights_only=True) for file in files]
        assert {path.name for path in (folder / "runs" / "version_0").rglob("*.png")} == {"step=2.png", "step=4.png"}
        averages = found[name][0]["state_dict"]
        assert all(torch.equal(weight, averages[part].half()) for part, weight in load_file(exported).items())
    for name in ("ddp", "fsdp"):
        for one, two in zip(found["one"], found[name], strict=True):
            for state in ("state_dict", "current_model_state"):
                assert one[state].keys() == two[state].keys()
                for part, weight in one[state].items():
                    torch.testing.assert_close(two[state][part], weight, atol=1e-4, rtol=1e-3, msg=part)
    averages, weights = found["ddp"][0]["state_dict"], found["ddp"][0]["current_model_state"]
    assert all((averages[part] - weight).abs().max() > 1e-4 for part, weight in weights.items() if weight.ndim > 1)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_rank_ends_both(tmp_path: Path) -> None:
    (tmp_path / "poison.py").write_text(
        "from lightning.pytorch import Callback\n"
        "class NotFinite(Callback):\n"
        "    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):\n"
        "        if trainer.global_rank == 1 and trainer.global_step == 2:\n"
        "            pl_module.network.register_forward_hook(lambda module, given, output: output * float('nan'))\n"
    )
    words = ("--config", "generator.yaml", "--config", str(TINY), *TWO, *FEW_IMAGES)
    stopped = run(tmp_path, "fit", *words, "--trainer.max_steps=4", "--trainer.callbacks+=poison.NotFinite")
    assert stopped.returncode == 1
    assert "Traceback" not in stopped.stderr
    assert re.search(r"error: .*loss.*step 3\b.*\bnan\b.*process 1\b", stopped.stderr)
    assert re.search(r"step 3\b.*not finite on another process than 0\b", stopped.stderr)
    assert "runs/version_0/checkpoints/last.ckpt" in stopped.stderr
    assert {path.name for path in tmp_path.rglob("step=*.ckpt")} == {"step=1.ckpt", "step=2.ckpt"}


@pytest.mark.slow
@pytest.mark.long
def test_ddp_does_not_miss_a_discriminator_that_waits(tmp_path: Path) -> None:
    files = ("tokenizer.yaml", "overlays/model/vqgan_losses.yaml", "overlays/strategy/ddp.yaml", str(TINY))
    words = [word for file in files for word in ("--config", file)]
    model = {"features": "null", "start_step": 2, "tokenizer.init_args.num_free_batches": 0}
    words += [f"--model.init_args.{name}={value}" for name, value in model.items()]
    words += [f"--data.init_args.{split}.init_args.num_images=64" for split in ("train", "val")]
    # One process is enough, because DDP refuses parameters without a gradient on any number of processes.
    synth2(tmp_path, "fit", *words, "--trainer.devices=1", "--trainer.max_steps=4", "--trainer.val_check_interval=4")
    assert list(tmp_path.rglob("last.ckpt"))
