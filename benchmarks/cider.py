"""How much sooner is a validation scored? Our tokeniser and CIDEr against pycocoevalcap's with its Java tokeniser.

Both are given the same made-up captions, 5,000 with five references each, as many as in COCO's validation split of
Karpathy, and must agree within 1e-6. Each round times both, from strings to score; the figures are medians of rounds.
Memory is measured apart, in a process of its own for each side, which makes the captions and scores them once: the
largest sum of resident memory of the process and its children (Java), looked at every 20 ms. Linux only.
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


def make_captions(num_pictures: int, seed: int = 0) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Make hypotheses and references with the habits of real ones: Zipf's law, shared words per picture, punctuation.

    Args:
        num_pictures: How many pictures; each has one hypothesis and five references.
        seed: The same seed makes the same captions.
    """
    rng = random.Random(seed)
    syllables = [consonant + vowel for consonant in "bcdfghklmnprstvw" for vowel in ("a", "e", "i", "o", "u", "an")]
    words = sorted({"".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(2 * NUM_WORDS)})
    rng.shuffle(words)
    words = words[:NUM_WORDS]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    hypotheses, references = {}, {}
    for picture in range(num_pictures):
        topic = rng.choices(words, weights, k=8)
        rare = rng.choices(words, weights, k=20)
        texts = [make_caption(rng, topic, rare) for _ in range(6)]
        hypotheses[str(picture)], references[str(picture)] = texts[0], texts[1:]
    return hypotheses, references


def make_caption(rng: random.Random, topic: Sequence[str], rare: Sequence[str]) -> str:
    """Make one caption of about ten words."""
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
    words.append(rng.choice(topic))  # captions of people end with a noun, not with "a."
    return " ".join(words).capitalize() + rng.choices((".", "", " .", "!"), (80, 15, 4, 1))[0]


def score_with_pycocoevalcap(hypotheses: dict[str, str], references: dict[str, list[str]]) -> tuple[float, float]:
    """Score as COCO's evaluation does; the score, and the seconds that the tokeniser took of it."""
    # Imported here, as ours below: neither side's memory is to hold the other's libraries.
    from pycocoevalcap.cider.cider import Cider as CocoCider
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    start = time.perf_counter()
    reference_tokens = tokenizer.tokenize({key: [{"caption": text} for text in references[key]] for key in references})
    hypothesis_tokens = tokenizer.tokenize({key: [{"caption": text}] for key, text in hypotheses.items()})
    tokenised = time.perf_counter() - start
    score, _ = CocoCider().compute_score(reference_tokens, hypothesis_tokens)
    return float(score), tokenised


def score_with_ours(hypotheses: dict[str, str], references: dict[str, list[str]]) -> float:
    """Score as a validation does."""
    from synth2_lightning.metrics.cider import cider

    return cider(hypotheses, references).score


def measure_memory(side: str, num_pictures: int) -> float:
    """Largest resident memory of a new process, children included, that scores once by "ours" or "rival"; in MiB."""
    process = multiprocessing.get_context("spawn").Process(target=score_once, args=(side, num_pictures))
    process.start()
    peak = 0
    while process.is_alive():
        peak = max(peak, resident_kib(process.pid or 0))
        time.sleep(0.02)
    if process.exitcode:
        raise SystemExit(f"The process that measures the memory of {side!r} ended with {process.exitcode}.")
    return round(peak / 1024, 1)


def score_once(side: str, num_pictures: int) -> None:
    """Score by one side, in a process whose memory is watched."""
    score = score_with_pycocoevalcap if side == "rival" else score_with_ours
    score(*make_captions(num_pictures))


def resident_kib(pid: int) -> int:
    """Resident memory of a process and all that it started, in KiB; what has ended meanwhile counts as nothing."""
    process = Path(f"/proc/{pid}")
    try:
        pages = int((process / "statm").read_text().split()[1])
        tasks = list((process / "task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return 0
    return pages * PAGE_KIB + sum(resident_kib(int(child)) for child in children)


def main() -> None:
    """Time both sides, check that they agree, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round instead of five")
    parser.add_argument("--pictures", type=int, default=5000, help="number of pictures (default: %(default)s)")
    arguments = parser.parse_args()
    if shutil.which("java") is None:
        parser.error("the rival is pycocoevalcap with its Java tokeniser: put java (8 or later) on the PATH")

    import pycocoevalcap.cider.cider  # noqa: F401  before any time is taken

    import synth2_lightning.metrics.cider  # noqa: F401
    from synth2_lightning.metrics import ptb

    hypotheses, references = make_captions(arguments.pictures)
    ours, rival, rival_tokeniser = [], [], []
    for _ in range(1 if arguments.quick else 5):
        ptb._tokenize_chunk.cache_clear()  # as in the first validation of a run
        start = time.perf_counter()
        score = score_with_ours(hypotheses, references)
        ours.append(time.perf_counter() - start)

        start = time.perf_counter()
        rival_score, tokenised = score_with_pycocoevalcap(hypotheses, references)
        rival.append(time.perf_counter() - start)
        rival_tokeniser.append(tokenised)
        if abs(score - rival_score) > TOLERANCE:
            raise SystemExit(
                f"The scores differ: ours {score}, pycocoevalcap's {rival_score}; the figures mean nothing."
            )

    ratio = round(statistics.median(rival) / statistics.median(ours), 2)
    report(
        "cider",
        ratio=ratio,
        ours_seconds=round(statistics.median(ours), 4),
        pycocoevalcap_seconds=round(statistics.median(rival), 4),
        pycocoevalcap_tokeniser_seconds=round(statistics.median(rival_tokeniser), 4),
        rounds=len(ours),
        pictures=arguments.pictures,
        references_per_picture=5,
        score=round(score, 9),
        score_difference=abs(score - rival_score),
        ours_peak_memory_mib=measure_memory("ours", arguments.pictures),
        pycocoevalcap_peak_memory_mib=measure_memory("rival", arguments.pictures),
    )
    if ratio < LEAST_RATIO:
        raise SystemExit(f"Only {ratio} times as fast; expected {LEAST_RATIO} times at least, on cores that are free.")


if __name__ == "__main__":
    main()
