"""Time of a training step of the captioner, against its bare language model.

Ours: resampler, decoder with its loss, backward pass and optimizer, on precomputed embeddings. Baseline: forward and
backward pass of the same frozen transformers model on the same number of positions, with its own loss. Both alternate
in one process. The ratio is of *times*, ours over the baseline's: lower is better, and below one means that the
complete step is faster than the bare model, because logits are computed only at the positions of a caption's tokens.

With cross-attention, the baseline is the bare model on the text without an image: the gated layers and the resampler
have 23 million trained parameters besides the model's 135 million, which is computation and not overhead. Therefore
`cross_attention_flops` is the same ratio in FLOPs of matrix products (counted by torch), and
`cross_attention_over_flops` is the ratio of times over it: one if all that is added to the bare model is computed as
fast as the model itself. With one thread, seconds are of CPU time.

    python benchmarks/vlm_step.py --quick
    python benchmarks/vlm_step.py --threads 2 --dtype float32 --attention eager
"""

import argparse
import random
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from report import report
from synth2_lightning.decoders.causal import CausalDecoder
from synth2_lightning.decoders.cross_attention import CrossAttentionDecoder
from synth2_lightning.decoders.language_model import LanguageModelSource
from synth2_lightning.decoders.prefix import PrefixDecoder
from synth2_lightning.decoders.vocabulary import build_vocabulary
from synth2_lightning.io.precision import WeightType, weight_dtype
from synth2_lightning.nn.perceiver import PerceiverResampler

SMOLLM2_135M = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
NUM_TOKENS, DIM, NUM_QUERIES = 49, 320, 16  # EfficientNet-Lite0's last feature map; number of latents


class RandomLanguageModel(LanguageModelSource):
    """A frozen, randomly initialized model of SmolLM2-135M's shape."""

    def __init__(self, dtype: torch.dtype, attention: str, vocabulary: Path) -> None:
        self.dtype = dtype
        self.attention = attention
        self.vocabulary = vocabulary

    @cached_property
    def tokenizer(self) -> Any:
        """Tokenizer whose ids are the first of the model's vocabulary."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.vocabulary)

    @cached_property
    def config(self) -> Any:
        """Configuration of the model."""
        from transformers import LlamaConfig

        return LlamaConfig(**SMOLLM2_135M, pad_token_id=0)

    def build(self) -> Any:
        """Return the model with random weights."""
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_config(self.config, dtype=self.dtype, attn_implementation=self.attention)
        return model.requires_grad_(False)


def make_captions(batch_size: int) -> list[str]:
    """Return random captions with the length of captions of photos: 9 to 17 words."""
    rng = random.Random(0)
    return [" ".join(f"word{rng.randrange(2000)}" for _ in range(rng.randint(9, 17))) for _ in range(batch_size)]


def our_step(decoder: CausalDecoder, captions: list[str]) -> Callable[[], None]:
    """Return a function that trains resampler and decoder for one step."""
    resampler = PerceiverResampler(NUM_QUERIES, depth=2, num_positions=NUM_TOKENS)
    resampler.build(DIM, decoder.embed_dim)
    trained = [parameter for part in (resampler, decoder) for parameter in part.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    embeddings = torch.randn(len(captions), NUM_TOKENS, DIM)
    is_bfloat16 = decoder.lm.dtype is not torch.float32

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16):
            loss = decoder.loss(resampler(embeddings), captions).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def bare_step(lm: nn.Module, decoder: CausalDecoder, captions: list[str], prefix: int) -> Callable[[], None]:
    """Return a function that runs the bare model once: same positions, same targets, its own loss."""
    tokens = decoder.caption_tokenizer.encode(captions, None)
    ids = nn.functional.pad(tokens.inputs, (prefix, 0))
    labels = nn.functional.pad(tokens.inputs.masked_fill(~tokens.is_target, -100), (prefix, 0), value=-100)
    words: Tensor = lm.get_input_embeddings()(ids)  # type: ignore[operator]

    def step() -> None:
        lm(inputs_embeds=words.detach().requires_grad_(), labels=labels, use_cache=False).loss.backward()

    return step


def count_flops(step: Callable[[], None]) -> int:
    """Return the FLOPs of the matrix products of a step; this is also its warm-up."""
    with FlopCounterMode(display=False) as counter:
        step()
    flops: int = counter.get_total_flops()
    return flops


def race(ours: Callable[[], None], bare: Callable[[], None], rounds: int) -> tuple[float, float, float]:
    """Alternate both; return the medians of our seconds, of the baseline's seconds, and of their ratios."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times = []
    for _ in range(rounds):
        start = clock()
        ours()
        middle = clock()
        bare()
        times.append((middle - start, clock() - middle))
    return median(o for o, _ in times), median(b for _, b in times), median(o / b for o, b in times)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 pairs per step instead of 32, and fewer rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=get_args(WeightType), default="auto", help="type of the frozen weights")
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="sdpa")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    num_pairs, rounds = (8, 2) if args.quick else (32, 8)
    dtype = weight_dtype(args.dtype, "the language model")
    captions = make_captions(num_pairs)
    with TemporaryDirectory() as folder:
        build_vocabulary(captions, 1, Path(folder))
        source = RandomLanguageModel(dtype, args.attention, Path(folder))
        bare = source.build()
        decoders = {
            "prefix": PrefixDecoder(source),
            "cross_attention": CrossAttentionDecoder(source, cross_attn_every_n_layers=5),
        }
        figures: dict[str, float] = {}
        for name, decoder in decoders.items():
            decoder.load()
            steps = our_step(decoder, captions), bare_step(bare, decoder, captions, NUM_QUERIES * (name == "prefix"))
            our_flops, bare_flops = map(count_flops, steps)
            ours, baseline, ratio = race(*steps, rounds)
            figures |= {f"{name}_seconds": ours, f"{name}_bare_seconds": baseline, f"ratio_{name}": ratio}
            figures |= {f"{name}_flops": our_flops / bare_flops, f"{name}_over_flops": ratio * bare_flops / our_flops}
    rounded = {key: round(value, 4) for key, value in figures.items()}
    report(
        "vlm_step",
        rounded.pop("ratio_prefix"),
        lower_is_better=True,
        **rounded,
        num_pairs=num_pairs,
        threads=args.threads,
        dtype=str(dtype).removeprefix("torch."),
        attention=args.attention,
    )


if __name__ == "__main__":
    main()
