"""Two processes over gloo: mixed.yaml trains under DDP and FSDP2, and scores are those of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TINY = Path(__file__).parents[1] / "configs" / "tiny.yaml"


def synth2(folder: Path, *words: str) -> str:
    """Run the command in a folder, as a user would; ranks are processes that Lightning starts."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "SYNTH2_TRACEBACK": "1"}
    finished = subprocess.run(
        [sys.executable, "-m", "synth2_lightning", *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
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
    [("--config", "overlays/ddp.yaml", "--trainer.devices=2"), ("--config", "overlays/fsdp.yaml")],
    ids=["ddp", "fsdp"],
)
def test_two_processes_train_mixed_and_score_like_one(strategy: tuple[str, ...], tmp_path: Path) -> None:
    few = ("--config", str(TINY), "--data.init_args.real.init_args.val.init_args.num_pictures=75")
    common = ("--config", "mixed.yaml", *few)
    small = ("--data.init_args.batch_size=8", "--data.init_args.real.init_args.val_batch_size=16")
    synth2(tmp_path, "fit", *common, *small, *strategy, "--trainer.max_steps=4", "--trainer.val_check_interval=4")
    checkpoint = next(tmp_path.rglob("last.ckpt"))

    cards = []
    for name, ranks in (("two", strategy), ("one", ())):
        (tmp_path / name).mkdir()
        synth2(tmp_path / name, "validate", *common, *small, *ranks, f"--ckpt_path={checkpoint}")
        cards.append(card_of(tmp_path / name, "cider/*/protocol.json"))
    two, one = cards
    # 75 pictures over two ranks: one of them is dealt twice and must not count twice.
    assert two["num_pictures"] == one["num_pictures"] == 75
    assert two["num_repeated_keys_dropped"] == 1
    assert two["score"] == pytest.approx(one["score"], abs=1e-9)
    assert two["score"] == pytest.approx(card_of(tmp_path, "cider/val-step=4/protocol.json")["score"], abs=1e-9)


@pytest.mark.slow
def test_ddp_does_not_miss_a_discriminator_that_waits(tmp_path: Path) -> None:
    files = ("tokenizer.yaml", "overlays/vqgan_losses.yaml", "overlays/ddp.yaml", str(TINY))
    words = [word for file in files for word in ("--config", file)]
    model = {"features": "null", "start_step": 2, "tokenizer.init_args.num_free_batches": 0}
    words += [f"--model.init_args.{name}={value}" for name, value in model.items()]
    words += [f"--data.init_args.{split}.init_args.num_pictures=64" for split in ("train", "val")]
    # One process is enough: DDP refuses parameters without a gradient whatever the number of processes.
    synth2(tmp_path, "fit", *words, "--trainer.devices=1", "--trainer.max_steps=4", "--trainer.val_check_interval=4")
    assert list(tmp_path.rglob("last.ckpt"))
