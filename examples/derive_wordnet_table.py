"""Derive the table of nouns that ships with the package from WordNet 3.0.

    python examples/derive_wordnet_table.py DICT src/synth2_lightning/concepts/wordnet.tsv.gz

DICT is the folder ``dict`` of WordNet 3.0 (https://wordnet.princeton.edu, ``WordNet-3.0.tar.gz``), of which
``data.noun``, ``index.noun``, ``index.sense`` and ``lexnames`` are read. Packages that bring WordNet 3.0 along serve as
well; where they split ``data.noun``, join the pieces by a line break. It has 15,300,280 bytes.

One line per synset, in the order of their ids: id, the first synset that it is a kind of, lexicographer file, and the
lemmas that mean it most often, divided by ``|``. Which sense a lemma has is counted in the texts that WordNet was held
to; as captions describe what is seen, a thing comes before something abstract that is up to three times as frequent. A
lemma that is mostly no noun ends in ``*``. The same files give the same bytes.
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
THINGS = {"animal", "artifact", "body", "food", "object", "person", "plant"}
VISIBLE = THINGS | {
    "Tops",
    "group",
    "location",
    "phenomenon",
    "substance",
}  # everyday nouns such as "crowd" and "water"
FUNCTION_WORDS = {"a", "am", "an", "as", "at", "be", "do", "he", "i", "in", "it", "me", "no", "or", "so", "us"}


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


class Tags:
    """How often lemmas and their senses are tagged in the texts that WordNet was held to (``index.sense``)."""

    def __init__(self, folder: Path) -> None:
        self.nouns: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.senses: Counter[tuple[str, str]] = Counter()
        self.verbs: Counter[str] = Counter()
        for line in (folder / "index.sense").read_text(encoding="latin-1").splitlines():
            key, synset, _, count = line.split()
            lemma, _, rest = key.partition("%")
            if rest[0] == "1":
                self.nouns[lemma] += int(count)
                self.senses[lemma, synset] += int(count)
            else:
                self.others[lemma] += int(count)
            if rest[0] == "2":
                self.verbs[lemma] += int(count)

    def is_mostly_other(self, lemma: str) -> bool:
        """Whether a lemma is mostly no noun; "jumping" and "eats" are only tagged where they are nouns."""
        if self.others[lemma] > self.nouns[lemma]:
            return True
        stem = lemma.removesuffix("ing")
        if stem != lemma:
            return self.nouns[lemma] < 2 and any(form in self.verbs for form in (stem, stem + "e", stem[:-1]))
        return lemma.endswith("s") and not self.nouns[lemma] and self.verbs[lemma[:-1]] >= 5


def choose_senses(folder: Path, synsets: dict[str, Synset], classes: set[str], tags: Tags) -> dict[str, str]:
    """Say which synset each lemma means; individuals do not count, unless they are classes of ImageNet."""
    chosen = {}
    for lemma, senses in read_senses(folder).items():
        named = [synset for synset in senses if not synsets[synset].is_individual or synset in classes]
        if not named or lemma in FUNCTION_WORDS:
            continue
        if not tags.nouns[lemma]:  # their order says nothing
            named.sort(key=lambda synset: synset not in classes)
        things = [synset for synset in named if synsets[synset].branch in THINGS]
        chosen[lemma] = named[0]
        if things and 0 < tags.senses[lemma, named[0]] <= 3 * tags.senses[lemma, things[0]]:
            chosen[lemma] = things[0]
    for lemma in [lemma for lemma in chosen if lemma.endswith("s") and tags.nouns[lemma[:-1]]]:
        # "glasses" is a word of its own, "shoes" is rather the plural of another than a state of affairs.
        is_own = tags.nouns[lemma] and synsets[chosen[lemma]].branch in VISIBLE
        if not is_own and not tags.is_mostly_other(lemma[:-1]):
            del chosen[lemma]
    return chosen


def derive(folder: Path) -> str:
    """Write the lines of the table."""
    synsets, tags = read_synsets(folder), Tags(folder)
    classes = {name[1:] for subset in SUBSETS for name in ImageNetInfo(subset).label_names()}
    rules = resolve("package://synth2_lightning/concepts/unsuitable.txt", "list of unsuitable concepts").read_text()
    chosen = choose_senses(folder, synsets, classes, tags)
    kept = classes | set(re.findall(r"\bn(\d{8})\b", rules))
    kept |= {key for key, synset in synsets.items() if synset.branch == "artifact" and not synset.is_individual}
    kept |= {synset for lemma, synset in chosen.items() if tags.nouns[lemma] and synsets[synset].branch in VISIBLE}
    for synset in list(kept):
        while synset := synsets[synset].parent:
            kept.add(synset)

    lemmas: dict[str, list[str]] = {synset: [] for synset in kept}
    for lemma, synset in sorted(chosen.items()):
        if synset in kept:
            lemmas[synset].append(lemma.replace("_", " ") + ("*" if tags.is_mostly_other(lemma) else ""))
    lines = []
    for synset in sorted(kept):
        parent = synsets[synset].parent
        fields = (f"n{synset}", parent and f"n{parent}", synsets[synset].branch, "|".join(lemmas[synset]))
        lines.append("\t".join(fields) + "\n")
    return "".join(lines)


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(gzip.compress(derive(Path(sys.argv[1])).encode(), 9, mtime=0))
