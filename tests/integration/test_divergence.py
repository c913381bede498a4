"""A loss that is not finite ends a run of the command line with a message, and damages no file."""

import re
from pathlib import Path

import pytest
import torch

from synth2_lightning.cli import main

TINY = Path(__file__).parents[1] / "configs" / "tiny.yaml"
POISON = '''
from lightning.pytorch import Callback

class NotFinite(Callback):
    """From a step on, what a part of the module gives is not a number."""

    def __init__(self, part: str, num_good: int = 2, rank: int = 0) -> None:
        self.part, self.num_good, self.rank = part, num_good, rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.num_good and trainer.global_rank == self.rank:
            part = pl_module.get_submodule(self.part)
            part.register_forward_hook(lambda module, given, output: output * float("nan"))

class NonFiniteGradient(Callback):
    """The loss is finite, but the gradient is not."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == 2:
            next(weight.grad for weight in pl_module.parameters() if weight.grad is not None).fill_(float("nan"))
'''


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "poison.py").write_text(POISON)


def words_of(name: str, poison: str, *further: str) -> list[str]:
    photos = "--data.init_args.real.init_args" if name == "mixed" else "--data.init_args"
    few = [f"{photos}.val.init_args.num_images=4", f"{photos}.num_workers=0"]
    few += [f"{photos}.train.init_args.num_images=16"]  # the fingerprint of the data reads all of them
    if name == "generator":
        few += ["--model.init_args.sampling.num_steps=2"]
        few += ["--model.init_args.network.init_args.depth=1"]
    if name == "tokenizer":
        few += ["--model.init_args.tokenizer.init_args.num_free_batches=0"]
    few += ["--data.init_args.batch_size=4", "--trainer.precision=32-true"]  # not all processors have bfloat16
    words = ["fit", "--config", f"{name}.yaml", "--config", str(TINY), "--data.init_args.num_workers=0"]
    return [*words, *few, "--trainer.max_steps=5", f"--trainer.callbacks+=poison.{poison}", *further]


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.partition("error: ")[2]


def check_what_is_left(exported: str) -> None:
    """Check that the last checkpoint is that of step 2, with finite weights, and that nothing was exported."""
    (run,) = Path("runs").glob("version_*")
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    assert all(weight.isfinite().all() for weight in checkpoint["state_dict"].values())
    assert not any("step=3" in path.name for path in (run / "checkpoints").iterdir())
    assert not (run / exported).exists()


@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.parametrize(
    ("name", "part", "logged"),
    [
        pytest.param("generator", "network", "train/loss=nan, train/accuracy=", marks=pytest.mark.slow),
        ("mixed", "resampler", "train/loss=nan, train/loss_scenes=nan"),
        pytest.param(
            "tokenizer",
            "tokenizer.network.decoder",
            "train/loss=nan, train/l1=nan, train/l2=nan, train/commitment=0",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_loss_that_is_not_finite_ends_the_run(
    name: str, part: str, logged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(words_of(name, "NotFinite", f"--trainer.callbacks.part={part}"), capsys)
    assert re.match(r".*loss.*step 3\b.*\bnan\b.*process 0\b", error)
    assert logged in error
    assert "Learning rate: " in error
    assert re.search(r"runs/version_0/checkpoints/last\.ckpt.*--ckpt_path.*--resume_with_changes=true", error)
    check_what_is_left(name)


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_non_finite_weights_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(words_of("generator", "NonFiniteGradient"), capsys)
    assert re.search(r"\(text_encoder\..*not finite.*process 0\b.*\b3 steps", error)
    check_what_is_left("generator")


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_non_finite_weights_of_the_last_step_are_not_exported(capsys: pytest.CaptureFixture[str]) -> None:
    words = words_of(
        "generator", "NonFiniteGradient", "--trainer.max_steps=3", "--trainer.callbacks=poison.NonFiniteGradient"
    )
    error = refusal([*words, "--trainer.enable_checkpointing=false"], capsys)
    assert re.search(r"no checkpoint.*learning rate", error)
    assert not list(Path("runs").rglob("generator"))
