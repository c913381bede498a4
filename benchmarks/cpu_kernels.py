"""Speed of the operations of ``nn/cpu_kernels.py`` on this CPU, against torch's.

Both alternate on the same tensors, forward and backward, in the sizes of the included configurations (450 words and 64
images in a batch); the figures are medians of CPU seconds with one thread. The ratio is the geometric mean of torch's
times over ours.

    OMP_NUM_THREADS=1 python benchmarks/cpu_kernels.py --quick
"""

import argparse
import time
from collections.abc import Callable
from statistics import geometric_mean, median

import timm
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, rms_norm, scaled_dot_product_attention

from report import report
from synth2_lightning.nn import cpu_kernels

Operation = Callable[[], Tensor]


def time_in_turn(ours: Operation, torchs: Operation, num_rounds: int) -> dict[str, float]:
    """Return the median CPU seconds of both, forward and, if there is a gradient, backward."""
    seconds: dict[str, list[float]] = {"ours": [], "torch": []}
    for _ in range(num_rounds + 1):
        for name, operation in (("ours", ours), ("torch", torchs)):
            start = time.process_time()
            result = operation()
            if result.requires_grad:
                torch.autograd.backward(result.float().sum())
            seconds[name].append(time.process_time() - start)
    return {name: median(times[1:]) for name, times in seconds.items()}


def normalization(dtype: torch.dtype) -> tuple[Operation, Operation]:
    """Return both implementations of RMSNorm over 64 images of 64 tokens."""
    x = torch.randn(64, 64, 160, dtype=dtype, requires_grad=True)
    gain = torch.ones(160, dtype=dtype, requires_grad=True)
    return lambda: cpu_kernels.rms_norm(x, gain), lambda: rms_norm(x, (160,), gain)


def attention(num_keys: int) -> tuple[Operation, Operation]:
    """Return both implementations of attention in bfloat16, over 64 images of 49 tokens."""
    queries, keys, values = (
        torch.randn(64, 4, num, 64, dtype=torch.bfloat16, requires_grad=True) for num in (49, num_keys, num_keys)
    )
    return (
        lambda: cpu_kernels.attention(queries, keys, values),
        lambda: scaled_dot_product_attention(queries, keys, values),
    )


def likelihood(dtype: torch.dtype, num_words: int) -> tuple[Operation, Operation]:
    """Return both implementations of the loss of words with a vocabulary of 49,152."""
    logits = torch.randn(num_words, 49152, dtype=dtype, requires_grad=True)
    targets = torch.randint(49152, (num_words,))
    return (
        lambda: cpu_kernels.negative_log_likelihood(logits, targets),
        lambda: cross_entropy(logits.float(), targets, reduction="none"),
    )


def frozen_chunks(num_images: int) -> tuple[Operation, Operation]:
    """Return EfficientNet-Lite0 with random weights over images of 224 pixels, in chunks and in one batch."""
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval().to(memory_format=torch.channels_last)
    images = torch.randn(num_images, 3, 224, 224).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def in_chunks() -> Tensor:
        return torch.cat([network(part) for part in torch.split(images, cpu_kernels.FROZEN_CHUNK)])

    @torch.no_grad()
    def at_once() -> Tensor:
        output: Tensor = network(images)
        return output

    return in_chunks, at_once


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 words, 16 images and two rounds")
    num_words, num_images, num_rounds = (64, 16, 2) if parser.parse_args().quick else (450, 64, 9)
    torch.manual_seed(0)
    cases = {
        "attention_to_image": attention(49),
        "attention_to_text": attention(32),
        "rms_norm_float32": normalization(torch.float32),
        "rms_norm_bfloat16": normalization(torch.bfloat16),
        "negative_log_likelihood_float32": likelihood(torch.float32, num_words),
        "negative_log_likelihood_bfloat16": likelihood(torch.bfloat16, num_words),
        "frozen_chunks_float32": frozen_chunks(num_images),
    }
    seconds = {name: time_in_turn(*pair, num_rounds) for name, pair in cases.items()}
    ratios = {name: times["torch"] / times["ours"] for name, times in seconds.items()}
    report(
        "cpu_kernels",
        geometric_mean(ratios.values()),
        threads=torch.get_num_threads(),
        ratios={name: round(ratio, 2) for name, ratio in ratios.items()},
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
