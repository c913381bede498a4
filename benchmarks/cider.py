"""How much sooner is a validation scored? Our tokeniser and CIDEr against pycocoevalcap's with its Java tokeniser.

Both are given the same made-up captions, 5,000 with five references each, as many as in COCO's validation split of
Karpathy, and must agree within 1e-6. Each round times both, from strings to score; the figures are medians of rounds.
"""

import argparse
import random
import shutil
import statistics
import time
from collections.abc import Sequence

from pycocoevalcap.cider.cider import Cider as CocoCider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from report import peak_memory_mib, report
from synth2_lightning.metrics import ptb
from synth2_lightning.metrics.cider import cider

TOLERANCE = 1e-6
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
    tokenizer = PTBTokenizer()
    start = time.perf_counter()
    reference_tokens = tokenizer.tokenize({key: [{"caption": text} for text in references[key]] for key in references})
    hypothesis_tokens = tokenizer.tokenize({key: [{"caption": text}] for key, text in hypotheses.items()})
    tokenised = time.perf_counter() - start
    score, _ = CocoCider().compute_score(reference_tokens, hypothesis_tokens)
    return float(score), tokenised


def main() -> None:
    """Time both sides, check that they agree, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round instead of five")
    parser.add_argument("--pictures", type=int, default=5000, help="number of pictures (default: %(default)s)")
    arguments = parser.parse_args()
    if shutil.which("java") is None:
        parser.error("the rival is pycocoevalcap with its Java tokeniser: put java (8 or later) on the PATH")

    hypotheses, references = make_captions(arguments.pictures)
    ours, rival, rival_tokeniser = [], [], []
    for _ in range(1 if arguments.quick else 5):
        ptb._tokenize_chunk.cache_clear()  # as in the first validation of a run
        start = time.perf_counter()
        score = cider(hypotheses, references).score
        ours.append(time.perf_counter() - start)

        start = time.perf_counter()
        rival_score, tokenised = score_with_pycocoevalcap(hypotheses, references)
        rival.append(time.perf_counter() - start)
        rival_tokeniser.append(tokenised)
        if abs(score - rival_score) > TOLERANCE:
            raise SystemExit(
                f"The scores differ: ours {score}, pycocoevalcap's {rival_score}; the figures mean nothing."
            )

    report(
        "cider",
        ratio=round(statistics.median(rival) / statistics.median(ours), 2),
        ours_seconds=round(statistics.median(ours), 4),
        pycocoevalcap_seconds=round(statistics.median(rival), 4),
        pycocoevalcap_tokeniser_seconds=round(statistics.median(rival_tokeniser), 4),
        rounds=len(ours),
        pictures=arguments.pictures,
        references_per_picture=5,
        score=round(score, 9),
        score_difference=abs(score - rival_score),
        peak_memory_mib=peak_memory_mib(),
    )


if __name__ == "__main__":
    main()
