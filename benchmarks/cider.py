"""Time and memory of our tokenizer and CIDEr, against pycocoevalcap with its Java tokenizer.

Both score the same generated captions, 5,000 with five references each, as many as in Karpathy's validation split of
COCO, and must agree within 1e-6. Each round times both, from strings to score; the figures are medians over rounds.
Memory is measured in a separate process per side, which generates the captions and scores them once: the peak of the
resident memory of the process and its children (Java), sampled every 20 ms. Linux only.
"""

import argparse
import multiprocessing
import random
import resource
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from report import report

TOLERANCE = 1e-6
LEAST_RATIO = 10
PAGE_KIB = resource.getpagesize() // 1024
FUNCTION_WORDS = ("a", "the", "in", "on", "with", "of", "and", "is", "to", "at", "an", "two", "his", "while", "near")
NUM_WORDS = 8000


def make_captions(num_images: int, seed: int = 0) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Generate hypotheses and references with realistic statistics: Zipf's law, shared words per image, punctuation.

    Args:
        num_images: Number of images; each has one hypothesis and five references.
        seed: Seed of the captions.
    """
    rng = random.Random(seed)
    syllables = [consonant + vowel for consonant in "bcdfghklmnprstvw" for vowel in ("a", "e", "i", "o", "u", "an")]
    words = sorted({"".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(2 * NUM_WORDS)})
    rng.shuffle(words)
    words = words[:NUM_WORDS]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    hypotheses, references = {}, {}
    for image in range(num_images):
        topic = rng.choices(words, weights, k=8)
        rare = rng.choices(words, weights, k=20)
        texts = [make_caption(rng, topic, rare) for _ in range(6)]
        hypotheses[str(image)], references[str(image)] = texts[0], texts[1:]
    return hypotheses, references


def make_caption(rng: random.Random, topic: Sequence[str], rare: Sequence[str]) -> str:
    """Generate a caption of about ten words."""
    words = []
    for _ in range(max(3, round(rng.gauss(9, 2.5)))):
        word = rng.choice(rng.choices((FUNCTION_WORDS, topic, rare), (45, 40, 15))[0])
        decoration = rng.random()
        if decoration < 0.02:
            word += "'s"
        elif decoration < 0.04:
            word += "-" + rng.choice(topic)
        elif decoration < 0.05:
            word = str(rng.randint(1, 100))
        elif decoration < 0.06:
            word = f'"{word}"'
        elif decoration < 0.09:
            word += ","
        words.append(word)
    words.append(rng.choice(topic))  # human captions end with a noun, not with "a."
    return " ".join(words).capitalize() + rng.choices((".", "", " .", "!"), (80, 15, 4, 1))[0]


def score_with_pycocoevalcap(hypotheses: dict[str, str], references: dict[str, list[str]]) -> tuple[float, float]:
    """Score with COCO's evaluation; return the score and the tokenizer's seconds."""
    # Imported here, as ours below, so that each side's memory has its own libraries only.
    from pycocoevalcap.cider.cider import Cider as CocoCider
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    start = time.perf_counter()
    reference_tokens = tokenizer.tokenize({key: [{"caption": text} for text in references[key]] for key in references})
    hypothesis_tokens = tokenizer.tokenize({key: [{"caption": text}] for key, text in hypotheses.items()})
    tokenized = time.perf_counter() - start
    score, _ = CocoCider().compute_score(reference_tokens, hypothesis_tokens)
    return float(score), tokenized


def score_with_ours(hypotheses: dict[str, str], references: dict[str, list[str]]) -> float:
    """Score as in validation."""
    from synth2_lightning.metrics.cider import cider

    return cider(hypotheses, references).score


def measure_memory(side: str, num_images: int) -> float:
    """Return the peak resident memory in MiB of a new process and its children that scores once by a side."""
    process = multiprocessing.get_context("spawn").Process(target=score_once, args=(side, num_images))
    process.start()
    peak = 0
    while process.is_alive():
        peak = max(peak, resident_kib(process.pid or 0))
        time.sleep(0.02)
    if process.exitcode:
        raise SystemExit(f"The process that measures the memory of {side!r} failed with exit code {process.exitcode}.")
    return round(peak / 1024, 1)


def score_once(side: str, num_images: int) -> None:
    """Score by one side ("ours" or "baseline"), in the process whose memory is measured."""
    score = score_with_pycocoevalcap if side == "baseline" else score_with_ours
    score(*make_captions(num_images))


def resident_kib(pid: int) -> int:
    """Return the resident memory in KiB of a process and its descendants; ended processes count as zero."""
    process = Path(f"/proc/{pid}")
    try:
        pages = int((process / "statm").read_text().split()[1])
        tasks = list((process / "task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return 0
    return pages * PAGE_KIB + sum(resident_kib(int(child)) for child in children)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 images instead of 5,000, one round instead of five")
    parser.add_argument("--images", type=int, help="number of images (default: 5,000)")
    args = parser.parse_args()
    num_images = args.images or (2000 if args.quick else 5000)
    if shutil.which("java") is None:
        parser.error("java is not on the PATH; expected version 8 or later, for pycocoevalcap's tokenizer")

    import pycocoevalcap.cider.cider  # noqa: F401  before the first measurement

    import synth2_lightning.metrics.cider  # noqa: F401
    from synth2_lightning.metrics import ptb

    hypotheses, references = make_captions(num_images)
    ours, baseline, baseline_tokenizer = [], [], []
    for _ in range(1 if args.quick else 5):
        ptb.tokenize_part.cache_clear()  # as in the first validation of a run
        start = time.perf_counter()
        score = score_with_ours(hypotheses, references)
        ours.append(time.perf_counter() - start)

        start = time.perf_counter()
        baseline_score, tokenized = score_with_pycocoevalcap(hypotheses, references)
        baseline.append(time.perf_counter() - start)
        baseline_tokenizer.append(tokenized)
        if abs(score - baseline_score) > TOLERANCE:
            raise SystemExit(
                f"The scores differ: ours is {score}, pycocoevalcap's {baseline_score}; expected a difference "
                f"of at most {TOLERANCE}."
            )

    ratio = round(statistics.median(baseline) / statistics.median(ours), 2)
    report(
        "cider",
        ratio=ratio,
        ours_seconds=round(statistics.median(ours), 4),
        pycocoevalcap_seconds=round(statistics.median(baseline), 4),
        pycocoevalcap_tokenizer_seconds=round(statistics.median(baseline_tokenizer), 4),
        rounds=len(ours),
        images=num_images,
        references_per_image=5,
        score=round(score, 9),
        score_difference=abs(score - baseline_score),
        ours_peak_memory_mib=measure_memory("ours", num_images),
        pycocoevalcap_peak_memory_mib=measure_memory("baseline", num_images),
    )
    if ratio < LEAST_RATIO:
        raise SystemExit(f"Ours is {ratio} times as fast; expected at least {LEAST_RATIO} times, on idle cores.")


if __name__ == "__main__":
    main()
