"""Equality of our Penn Treebank tokens with those of Stanford's jar, on captions and on generated strings.

Strings that differ are classified by their unusual content; the classes are printed with counts and an example each.
Line separators are replaced by spaces first, because pycocoevalcap would shift all later captions by one; a word
separates the strings, so that no string is the context of another.
"""

import argparse
import json
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from synth2_lightning.metrics.ptb import tokenize

_CHARACTERS: dict[str, Sequence[str]] = {
    "quotes": [
        *"'\"`\u00b4\u2018\u2019\u201c\u201d\u00ab\u00bb\u2039\u203a\u201e\u201a",
        "''",
        "``",
        "&quot;",
        "&apos;",
    ],
    "emoji": ["\U0001f600", "\U0001f44d\U0001f3fd", "\u2764\ufe0f", "\u263a", "\U0001f468\u200d\U0001f469", "\u2122"],
    "control": [*map(chr, (set(range(1, 32)) - {10, 11, 12, 13})), "\x7f", "\u200b", "\ufeff", "\u00ad", "\u202e"],
    "scripts": [
        *"\u00e9\u00f1\u00fc\u00df\u00f8\u03a9\u0436\u65e5\ud55c\u0e44\u05e2\u0905\u0627",
        *("e\u0301", "\ufb01", "\u0130"),
    ],
}
_PIECES: dict[str, Sequence[str]] = {
    kind: pieces.split()
    for kind, pieces in {
        "words": "a A the man's dogs' can't won't I'm they've it's red-haired T-shirt o'clock dog runs Two BIG",
        "numbers": "3 10 1/2 $5 $5.99 5% 12:30 1,000 3.5 5th 10am 4x4 #1 '90s -7 +3 1e5 \u00bd \u00b2 10\u00b0 5'6\" "
        "\u0663 555-1234",
        "markup": '<b> </b> <br/> <a href="x"> &amp; &lt; &#39; &nbsp; <!-- x --> <unk> </s> [CLS] <|end|> <3',
        "addresses": "http://x.org/a_b https://a.b/c?d=e www.example.com me@example.com a.b.c @me #tag file.jpg C:\\x",
        "abbreviations": "U.S. U.S.A. p.m. Mr. St. etc. e.g. i.e. vs. No. fig. Ph.D. Jr. B.",
    }.items()
}
POOLS = _CHARACTERS | _PIECES
LINE_SEPARATORS = str.maketrans(dict.fromkeys("\n\r\x0b\x0c\x85\u2028\u2029", " "))
# A difference belongs to the first class that matches.
CLASSES = {
    "a character beyond 16 bits": r"[\U00010000-\U0010FFFF]",
    "a control or format character": r"[\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\ufeff]",
    "markup": r"<[A-Za-z/!?]",
    "an address": r"://|www\.|@|\\|\.(?:com|org|jpg)",
    "an entity": r"&#?\w+;",
    "o'clock next to other characters": r"\w['\u2019]clock\S|\S[oO]['\u2019]clock",
    "a contraction next to other characters": r"['\u2019](?:t|m|s|d|ll|re|ve)[^\W_]",
    "an abbreviation next to other characters": r"\w\.\w",
    "a character of a rare script or symbol": r"[^\x00-\u024f\u2018-\u201f]",
    "digits next to other characters": r"\d\S|\S\d",
}


def tokenize_with_jar(texts: Sequence[str]) -> list[str]:
    """Tokenize with pycocoevalcap."""
    corpus = {index: [{"caption": text}, {"caption": "neighbor"}] for index, text in enumerate(texts)}
    tokens = PTBTokenizer().tokenize(corpus)
    return [tokens[index][0] for index in range(len(texts))]


def make_strings(num: int, seed: int) -> list[str]:
    """Generate strings of one to nine pieces of a few kinds, three quarters of them followed by a space."""
    rng = random.Random(seed)
    strings = []
    for _ in range(num):
        kinds = [*rng.sample([*POOLS, "any", "ascii"], k=rng.randint(1, 3)), "words"]
        pieces = [make_piece(rng, rng.choice(kinds)) for _ in range(rng.randint(1, 9))]
        text = "".join(piece + " " * (rng.random() < 0.75) for piece in pieces)
        strings.append(text.translate(LINE_SEPARATORS).strip(" "))
    return strings


def make_piece(rng: random.Random, kind: str) -> str:
    """Generate a piece of one kind; "any" is any character of Unicode except surrogates."""
    if kind == "ascii":
        return chr(rng.randrange(32, 127))
    if kind != "any":
        return rng.choice(POOLS[kind])
    first, last = rng.choice([(0xA0, 0x250), (0x250, 0x2000), (0x2000, 0x3000), (0x3000, 0xD800), (0xE000, 0x20000)])
    return chr(rng.randrange(first, last))


def compare(texts: Sequence[str]) -> dict[str, list[tuple[str, str, str]]]:
    """Return the differences by class: the string, our tokens, the jar's tokens."""
    different = defaultdict(list)
    for text, theirs in zip(texts, tokenize_with_jar(texts), strict=True):
        if (ours := tokenize(text)) != theirs:
            kind = next((name for name, pattern in CLASSES.items() if re.search(pattern, text)), "anything else")
            different[kind].append((text, ours, theirs))
    return different


def show(name: str, num: int, different: dict[str, list[tuple[str, str, str]]]) -> None:
    """Print the classes by descending frequency, each with its shortest example."""
    print(f"{name}: {sum(map(len, different.values()))} of {num} differ")
    for kind, cases in sorted(different.items(), key=lambda item: -len(item[1])):
        text, ours, theirs = min(cases, key=lambda case: len(case[0]))
        print(f"  {len(cases):5d}  {kind}: {text!a} gives {ours!a}; the jar gives {theirs!a}")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", nargs="*", type=Path, help="files of COCO captions")
    parser.add_argument("--strings", type=int, default=100_000, help="generated strings (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    captions = [
        annotation["caption"].translate(LINE_SEPARATORS)
        for path in args.captions
        for annotation in json.loads(path.read_bytes())["annotations"]
    ]
    if captions:
        show("captions", len(captions), compare(captions))
    strings = make_strings(args.strings, args.seed)
    show("generated strings", len(strings), compare(strings))


if __name__ == "__main__":
    main()
