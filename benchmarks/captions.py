"""Throughput of a local language model in captions per second, against transformers' ``generate`` with batch size one.

Both get the same prompts for classes of ImageNet-21k (`configs/prompts/small_model.yaml`), the same weights
(SmolLM2-135M-Instruct, in bfloat16 where the CPU computes it) and the same sampling parameters. The baseline generates
fewer captions, since it takes seconds for each; the mean length of captions is reported for both.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from report import peak_memory_mib, report
from synth2_lightning.cli.run_files import run_file_folder
from synth2_lightning.concepts.imagenet import ImageNetConcepts
from synth2_lightning.concepts.prompts import PromptExample, PromptTemplate
from synth2_lightning.concepts.sampling import UniformSampling
from synth2_lightning.datamodules.captions import record_seed
from synth2_lightning.generators.language_model import LanguageModelCaptionGenerator
from synth2_lightning.generators.token_sampling import TokenSampling
from synth2_lightning.types import Prompt

SAMPLING = TokenSampling(max_new_tokens=40, temperature=0.7, top_p=0.9)


def make_prompts(count: int) -> tuple[list[Prompt], list[int]]:
    """Return prompts for captions of sampled classes, and their seeds."""
    concepts = ImageNetConcepts()
    concepts.load()
    classes = [concepts.concept(index) for index in range(len(concepts))]
    chosen = [classes[index] for index in UniformSampling().sample(classes, count, seed=0)]
    seeds = [record_seed(0, concept.key) for concept in chosen]
    template = read_template(run_file_folder() / "prompts" / "small_model.yaml")
    return [template.render([concept], seed) for concept, seed in zip(chosen, seeds, strict=True)], seeds


def read_template(path: Path) -> PromptTemplate:
    """Read a template as the command line does."""
    arguments = yaml.safe_load(path.read_text())["init_args"]
    arguments["examples"] = [PromptExample(**example) for example in arguments["examples"]]
    return PromptTemplate(**arguments)


def write_one_by_one(generator: LanguageModelCaptionGenerator, prompts: Sequence[Prompt]) -> tuple[float, float]:
    """Generate as in transformers' documentation; return the seconds and the mean length of an answer in tokens.

    The network of ``generator`` is used with transformers' default attention, which it keeps.
    """
    network, tokenizer = generator.network, generator.tokenizer
    network.set_attn_implementation("sdpa")
    torch.manual_seed(0)
    num_tokens = 0
    start = time.process_time()
    for prompt in prompts:
        turns = [{"role": message.role, "content": message.content} for message in prompt]
        inputs = tokenizer.apply_chat_template(
            turns, continue_final_message=True, return_tensors="pt", return_dict=True
        )
        answer = network.generate(
            **inputs,
            do_sample=True,
            max_new_tokens=SAMPLING.max_new_tokens,
            temperature=SAMPLING.temperature,
            top_k=SAMPLING.top_k,
            top_p=SAMPLING.top_p,
            pad_token_id=tokenizer.eos_token_id,
        )
        num_tokens += answer.shape[1] - inputs["input_ids"].shape[1]
    return time.process_time() - start, num_tokens / len(prompts)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="eight captions, two of the baseline")
    args = parser.parse_args()
    # As many rows are computed with fewer captions, so that a caption does not depend on the others.
    num_ours, num_baseline, num_rows = (8, 2, 8) if args.quick else (1000, 60, 64)
    model, gguf_file = "weights://smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf"

    prompts, seeds = make_prompts(num_ours)
    generator = LanguageModelCaptionGenerator(model, gguf_file, "auto", num_rows=num_rows, sampling=SAMPLING)
    generator.load()
    generator.generate(prompts[:1], seeds[:1])  # reads the tokenizer
    start = time.process_time()
    answers = generator.generate(prompts, seeds)
    seconds = time.process_time() - start
    baseline_seconds, baseline_length = write_one_by_one(generator, prompts[:num_baseline])

    ours, baseline = num_ours / seconds, num_baseline / baseline_seconds
    report(
        "captions",
        ratio=round(ours / baseline, 2),
        ours_captions_per_second=round(ours, 2),
        transformers_captions_per_second=round(baseline, 2),
        ours_seconds=round(seconds, 2),
        transformers_seconds=round(baseline_seconds, 2),
        ours_captions=num_ours,
        transformers_captions=num_baseline,
        ours_tokens_per_answer=round(sum(answer.num_tokens for answer in answers) / num_ours, 2),
        transformers_tokens_per_answer=round(baseline_length, 2),
        prompt_tokens=round(sum(answer.num_prompt_tokens for answer in answers) / num_ours, 1),
        num_rows=num_rows,
        dtype=str(generator.network.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        peak_memory_mib=peak_memory_mib(),
    )


if __name__ == "__main__":
    main()
