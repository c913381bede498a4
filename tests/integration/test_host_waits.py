"""No training step makes the host wait for the device between the logged steps.

The tests need no GPU. Steps run on the CPU, where the operations that would make the host wait for a GPU are recorded,
and on the meta device, which has no values to read and detects tensors of the host that are copied to it.
"""

import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.decoders.prefix import PrefixDecoder
from synth2_lightning.encoders.text import NewTextEncoder
from synth2_lightning.encoders.vqgan import TrainableVQGAN
from synth2_lightning.interfaces import TextEncoder
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.modules.muse import MuseModule
from synth2_lightning.modules.tokenizer import TokenizerModule
from synth2_lightning.nn.maskgit import MaskGit
from synth2_lightning.testing import TinyImageTokenizer, TinyResampler, TinyTextEncoder, tiny_batch
from synth2_lightning.types import VQTokens

aten = torch.ops.aten
WORDS = "package://synth2_lightning/scenes/vocabulary"
READS = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.masked_scatter_backward, aten.equal, aten._unique2,
    aten.unique_dim, aten.unique_consecutive, aten.bincount, aten.repeat_interleave,
}  # fmt: skip


class Waits(TorchDispatchMode):
    """Records the operations that would make the host wait for a GPU, with the lines that call them.

    Args:
        device: Type of the device whose values must not be read.
        ignored: Functions whose reads are not recorded.
    """

    def __init__(self, device: str, ignored: Sequence[str] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.ignored = device, ignored
        self.found: list[str] = []
        self.is_recording = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.is_recording and self._waits(func.overloadpacket, args, kwargs or {}):
            own = ("synth2_lightning/", "lightning/pytorch/", "torch/optim/", "transformers/", "torchmetrics/")
            lines = [line for line in traceback.extract_stack()[:-1] if any(name in line.filename for name in own)]
            # Optimizers count their steps on the host.
            is_ignored = lines and "torch/optim/" in lines[-1].filename
            if not is_ignored and not any(line.name in self.ignored for line in lines):
                callers = [f"{line.filename}:{line.lineno} {line.name}" for line in reversed(lines[-3:])]
                self.found.append(f"{func}: {' < '.join(callers)}")
        return func(*args, **(kwargs or {}))

    def _waits(self, name: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        if name is aten._to_copy:
            target = torch.device(kwargs.get("device") or args[0].device).type
            return target != args[0].device.type and not kwargs.get("non_blocking", False)
        if args and isinstance(args[0], Tensor) and args[0].device.type != self.device:
            return False
        if name in {aten.index, aten.index_put, aten.index_put_}:
            indices = [index for index in args[1] if index is not None]
            return any(index.dtype is torch.bool or index.device != args[0].device for index in indices)
        return name in READS


class From(Callback):
    """Records from the second batch to the end of the last one."""

    def __init__(self, waits: Waits) -> None:
        self.waits = waits

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.waits.is_recording = batch_idx > 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.waits.is_recording = False


def muse(text_encoder: TextEncoder) -> MuseModule:
    return MuseModule(TinyImageTokenizer(), text_encoder, partial(MaskGit, width=16, depth=1, num_heads=2))


def new_text() -> TextEncoder:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    return NewTextEncoder({"model_type": "bert", **sizes}, WORDS)


def captioner() -> VisionLanguageModule:
    decoder = PrefixDecoder(NewLanguageModel({"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2}, WORDS))
    return VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), decoder)


def loader(num_batches: int) -> DataLoader[Any]:
    batches: Any = [tiny_batch(4, seed) for seed in range(num_batches)]
    return DataLoader(batches, batch_size=None)


TOKENS = VQTokens(torch.zeros(4, 4, 1, dtype=torch.long), TinyImageTokenizer.codebook)
MODULES = [
    pytest.param(lambda: muse(TinyTextEncoder()), id="generator"),
    pytest.param(lambda: muse(new_text()), id="generator with its text encoder"),
    pytest.param(captioner, id="captioner"),
]


@pytest.mark.filterwarnings(
    "ignore:The number of training batches", "ignore:The .*dataloader. does not have many workers"
)
@pytest.mark.parametrize("make", MODULES)
def test_no_batch_of_a_fit_waits(make: Callable[[], LightningModule], tmp_path: Path) -> None:
    # Training steps are tested below. Lightning's `metrics` reads the values of the progress bar in every batch.
    waits = Waits("cpu", ignored=("training_step", "metrics"))
    waits.is_recording = False
    trainer = Trainer(
        accelerator="cpu", logger=CSVLogger(tmp_path), max_steps=4, enable_checkpointing=False,
        enable_model_summary=False, callbacks=[From(waits)], log_every_n_steps=50, limit_val_batches=0,
    )  # fmt: skip
    with waits:
        trainer.fit(make(), loader(4), loader(1))
    assert waits.found == []
    shown = set(trainer.progress_bar_metrics)
    assert "loss" in shown
    assert not any(name.startswith("train/") for name in shown)  # those are on the device


@pytest.mark.parametrize("make", MODULES)
def test_a_step_on_a_device_reads_nothing_and_waits_for_no_copy(make: Callable[[], LightningModule]) -> None:
    module = make()
    module.configure_model()
    module.to("meta")
    batch = replace(tiny_batch(4), image=TOKENS).to("meta")
    with Waits("meta") as waits:
        loss: Any = module.training_step(batch, 0)
        loss.backward()
    assert waits.found == []


def test_a_step_of_a_tokenizer_reads_only_the_number_of_dead_codes() -> None:
    module = TokenizerModule(TrainableVQGAN(image_size=8, codebook_size=8, block_out_channels=(8, 8)))
    module.training_step(tiny_batch(4), 0)
    with Waits("cpu") as waits:
        module.training_step(tiny_batch(4, seed=1), 1).backward()
    assert waits.found
    assert all("_revive" in read for read in waits.found), waits.found


@pytest.mark.slow  # two processes
@pytest.mark.parametrize("name", ["captioner", "generator"])
def test_a_step_has_one_collective_besides_the_gradients_and_all_ranks_stop_in_it(name: str, tmp_path: Path) -> None:
    script = Path(__file__).parent / "count_collectives.py"
    stopped = subprocess.run([sys.executable, script, name, tmp_path], capture_output=True, text=True, check=False)
    assert stopped.returncode == 143, stopped.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["batches"] == [["allreduce_", "allreduce_"]] * 3
    # Rank 1 receives SIGTERM in the fourth batch, sends a request in the fifth, and all ranks read it in the sixth.
    assert first["step"] == 6
