"""Derive the table of nouns that ships with the package from WordNet 3.0.

    python examples/derive_wordnet_table.py DICT src/synth2_lightning/concepts/wordnet.tsv.gz

DICT is the folder ``dict`` of WordNet 3.0 (https://wordnet.princeton.edu, ``WordNet-3.0.tar.gz``), of which
``data.noun``, ``index.noun``, ``index.sense`` and ``lexnames`` are read. Packages that bring WordNet 3.0 along serve as
well; where they split ``data.noun``, join the pieces by a line break. It has 15,300,280 bytes.

One line per synset, in the order of their ids: id, the first synset that it is a kind of, lexicographer file, and the
lemmas whose leading sense it is, divided by ``|``. A lemma that is mostly no noun ends in ``*``. The same files give the
same bytes.
"""

import gzip
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from timm.data import ImageNetInfo

from synth2_lightning.locations import resolve

SUBSETS = ("imagenet-1k", "imagenet-21k-goog")  # all others are part of these
# Where everyday nouns may come from that ImageNet lacks, such as "man" and "water".
VISIBLE = {"Tops", "animal", "artifact", "body", "food", "group", "location", "object", "person", "phenomenon", "plant"}
VISIBLE |= {"substance"}


@dataclass(frozen=True)
class Synset:
    """A line of ``data.noun``."""

    branch: str
    parent: str
    is_individual: bool


def read_synsets(folder: Path) -> dict[str, Synset]:
    """Read all nouns."""
    names = dict(line.split()[:2] for line in (folder / "lexnames").read_text().splitlines())
    synsets = {}
    for line in (folder / "data.noun").read_text(encoding="latin-1").splitlines():
        if line.startswith(" "):
            continue  # the licence
        fields = line.partition(" | ")[0].split()
        start = 4 + 2 * int(fields[3], 16)
        pointers = [fields[at : at + 2] for at in range(start + 1, start + 1 + 4 * int(fields[start]), 4)]
        parents = [target for symbol, target in pointers if symbol in ("@", "@i")]
        is_individual = any(symbol == "@i" for symbol, _ in pointers)
        synsets[fields[0]] = Synset(names[fields[1]].removeprefix("noun."), next(iter(parents), ""), is_individual)
    return synsets


def read_senses(folder: Path) -> dict[str, list[str]]:
    """Read which synsets each lemma stands for, the most frequent first."""
    senses = {}
    for line in (folder / "index.noun").read_text(encoding="latin-1").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            senses[fields[0]] = fields[-int(fields[2]) :]
    return senses


def count_tags(folder: Path) -> Counter[tuple[str, bool]]:
    """Count how often each lemma was tagged as a noun, and as anything else, in the texts that WordNet was held to."""
    counts: Counter[tuple[str, bool]] = Counter()
    for line in (folder / "index.sense").read_text(encoding="latin-1").splitlines():
        key, _, _, count = line.split()
        lemma, _, rest = key.partition("%")
        counts[lemma, rest.startswith("1")] += int(count)
    return counts


def derive(folder: Path) -> str:
    """Write the lines of the table."""
    synsets, senses, tags = read_synsets(folder), read_senses(folder), count_tags(folder)
    kept = {name[1:] for subset in SUBSETS for name in ImageNetInfo(subset).label_names()}
    rules = resolve("package://synth2_lightning/concepts/unsuitable.txt", "list of unsuitable concepts").read_text()
    leading = {}
    for lemma, candidates in senses.items():
        named = [synset for synset in candidates if not synsets[synset].is_individual or synset in kept]
        leading.update({lemma: synset for synset in named[:1]})
    kept |= set(re.findall(r"\bn(\d{8})\b", rules))
    kept |= {synset for lemma, synset in leading.items() if tags[lemma, True] and synsets[synset].branch in VISIBLE}
    for synset in list(kept):
        while synset := synsets[synset].parent:
            kept.add(synset)

    lemmas: dict[str, list[str]] = {synset: [] for synset in kept}
    for lemma, synset in sorted(leading.items()):
        if synset in kept:
            mostly_other = tags[lemma, False] > tags[lemma, True]
            lemmas[synset].append(lemma.replace("_", " ") + ("*" if mostly_other else ""))
    lines = []
    for synset in sorted(kept):
        parent = synsets[synset].parent
        fields = (f"n{synset}", parent and f"n{parent}", synsets[synset].branch, "|".join(lemmas[synset]))
        lines.append("\t".join(fields) + "\n")
    return "".join(lines)


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(gzip.compress(derive(Path(sys.argv[1])).encode(), 9, mtime=0))
