"""Commands as users run them, on the GPU if there is one; sections of ``gpu.py``."""

import contextlib
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from gpu_measure import count_host_stops, emit, profiled
from synth2_lightning.cli.main import main
from synth2_lightning.cli.trainer import run_trainer
from synth2_lightning.scenes.source import ScenesSource

GGUF_FILE = "random.gguf"


def smoke(is_quick: bool) -> None:
    """Emit the seconds of a fit, its resumption, captions of images, and captions by a GGUF language model."""
    steps, num_images = (2, 8) if is_quick else (100, 256)
    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        fit = ["fit", "--config", "mixed.yaml", "--trainer.precision=auto"]
        fit += [f"--trainer.val_check_interval={steps}", f"--data.batch_size={num_images // 4}"]
        fit += [f"--data.real.init_args.val.init_args.num_images={num_images}"]
        run("fit", [*fit, f"--trainer.max_steps={steps}"])
        run("resume", [*fit, f"--trainer.max_steps={2 * steps}", "--resume_with_changes=true", "--ckpt_path=last"])
        write_images(Path("images"), num_images)
        run("caption", ["caption", "runs/version_0", "images", "--out", "captions.jsonl"])
        emit(num_captions=len(Path("captions.jsonl").read_text().splitlines()))
        write_language_model(Path("lm"), is_quick)
        gguf = ["predict", "--config", "captions.yaml", f"--data.num_captions={2 * num_images}"]
        gguf += ["--model.generator.init_args.model=lm", f"--model.generator.init_args.gguf_file={GGUF_FILE}"]
        gguf += ["--model.generator.init_args.sampling.max_new_tokens=8"]
        run("gguf_captions", gguf)


def run(name: str, words: list[str]) -> None:
    """Run a command, and emit its seconds.

    Raises:
        RuntimeError: If it fails; it has printed why.
    """
    start = time.perf_counter()
    try:
        main(words)
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"synth2 {' '.join(words)} ended with {end.code}.") from end
    emit(**{f"{name}_seconds": time.perf_counter() - start})


def write_images(folder: Path, number: int) -> None:
    """Write rendered Scenes as JPEGs."""
    folder.mkdir()
    scenes = ScenesSource("test", number)
    for index in range(number):
        scenes.image(index).save(folder / f"{index:04d}.jpg")


def write_language_model(folder: Path, is_quick: bool) -> None:
    """Write a language model of SmolLM2-135M's shape with random weights in GGUF's Q8_0 format."""
    import gguf

    layers, width, inner, heads, groups = (1, 64, 96, 2, 1) if is_quick else (30, 576, 1536, 9, 3)
    head_dim = width // heads
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / GGUF_FILE, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(head_dim)
    characters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256 + 68))]  # GPT-2's bytes
    tokens = ["<|end|>", *characters, "an"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))  # control and normal tokens
    writer.add_token_merges(["a n"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    shapes = {"token_embd": (len(tokens), width)}
    for number in range(layers):
        shapes |= {
            f"blk.{number}.attn_q": (width, width), f"blk.{number}.attn_k": (groups * head_dim, width),
            f"blk.{number}.attn_v": (groups * head_dim, width), f"blk.{number}.attn_output": (width, width),
            f"blk.{number}.ffn_gate": (inner, width), f"blk.{number}.ffn_up": (inner, width),
            f"blk.{number}.ffn_down": (width, inner),
        }  # fmt: skip
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = 0.05 * random.standard_normal(shape, dtype=np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    gains = ["output_norm", *(f"blk.{number}.{name}" for number in range(layers) for name in ("attn_norm", "ffn_norm"))]
    for name in gains:
        writer.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class HostStops(Callback):
    """Counts host stops in some steps of a fit, and profiles the following ones; emits both.

    Args:
        name: Beginning of the figures' names.
        start_step: First step that is measured.
        num_steps: Steps of each measurement.
    """

    def __init__(self, name: str, start_step: int, num_steps: int) -> None:
        self.name = name
        self.steps = start_step, start_step + num_steps, start_step + 2 * num_steps
        self._measurement: Any = None
        self._figures: Any = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Run before a step: ends a measurement, and starts the next."""
        first, second, last = self.steps
        step = trainer.global_step
        if step in (second, last):
            self._measurement.__exit__(None, None, None)
            if step == second:
                per_step = {line: count / (second - first) for line, count in self._figures.most_common(30)}
                emit(**{f"{self.name}_stops_per_step": sum(self._figures.values()) / (second - first)})
                emit(**{f"{self.name}_stops_by_line": per_step})
            else:
                emit(**{f"{self.name}_{key}": value for key, value in self._figures.items()})
        if step in (first, second):
            self._measurement = count_host_stops() if step == first else profiled()
            self._figures = self._measurement.__enter__()


def host(is_quick: bool) -> None:
    """Emit host stops, idle time and attention kernels of steps of the shipped run files, with all their callbacks."""
    first, number = (2, 1) if is_quick else (40, 20)
    with TemporaryDirectory() as folder:
        for name in ("generator", "mixed")[: 1 if is_quick else 2]:
            words = ["fit", "--config", f"{name}.yaml", "--trainer.precision=auto", "--trainer.limit_val_batches=0"]
            words += [f"--trainer.default_root_dir={folder}", f"--trainer.max_steps={first + 2 * number + 1}"]
            words += ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={folder}"]
            words += ["--trust=gpu_runs", "--trainer.callbacks+=gpu_runs.HostStops", f"--trainer.callbacks.name={name}"]
            words += [f"--trainer.callbacks.start_step={first}", f"--trainer.callbacks.num_steps={number}"]
            run_trainer([*words, *(["--data.batch_size=4"] if is_quick else [])])
