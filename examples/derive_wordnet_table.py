"""Derive the table of nouns that the package includes from WordNet 3.0.

    python examples/derive_wordnet_table.py DICT src/synth2_lightning/concepts/wordnet.tsv.gz

DICT is the folder ``dict`` of WordNet 3.0 (https://wordnet.princeton.edu, ``WordNet-3.0.tar.gz``), of which
``data.noun``, ``index.noun``, ``index.sense`` and ``lexnames`` are read. Packages that include WordNet 3.0 can be used
as well; if they split ``data.noun``, join the parts with a line break. It has 15,300,280 bytes.

The table has one line per synset in the order of their ids: id, first hypernym, lexicographer file, and the lemmas
whose main sense it is, separated by ``|``. The main sense of a lemma is the most frequent one in WordNet's tagged
texts; because captions describe visible things, a thing has precedence over an abstract sense that is up to three times
as frequent. A lemma that is mostly not a noun ends in ``*``. The output is deterministic.
"""

import gzip
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from timm.data import ImageNetInfo

from synth2_lightning.io.locations import resolve

SUBSETS = ("imagenet-1k", "imagenet-21k-goog")  # these contain all others
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
    """Return all noun synsets by id."""
    names = dict(line.split()[:2] for line in (folder / "lexnames").read_text().splitlines())
    synsets = {}
    for line in (folder / "data.noun").read_text(encoding="latin-1").splitlines():
        if line.startswith(" "):
            continue  # the license
        fields = line.partition(" | ")[0].split()
        start = 4 + 2 * int(fields[3], 16)
        pointers = [fields[at : at + 2] for at in range(start + 1, start + 1 + 4 * int(fields[start]), 4)]
        parents = [target for symbol, target in pointers if symbol in ("@", "@i")]
        is_individual = any(symbol == "@i" for symbol, _ in pointers)
        synsets[fields[0]] = Synset(names[fields[1]].removeprefix("noun."), next(iter(parents), ""), is_individual)
    return synsets


def read_senses(folder: Path) -> dict[str, list[str]]:
    """Return the synsets of each lemma, in WordNet's order of frequency."""
    senses = {}
    for line in (folder / "index.noun").read_text(encoding="latin-1").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            senses[fields[0]] = fields[-int(fields[2]) :]
    return senses


class Tags:
    """Counts of lemmas and senses in WordNet's tagged texts (``index.sense``)."""

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
        """Return whether a lemma is mostly not a noun; inflected verbs such as "jumping" are tagged only as nouns."""
        if self.others[lemma] > self.nouns[lemma]:
            return True
        stem = lemma.removesuffix("ing")
        if stem != lemma:
            return self.nouns[lemma] < 2 and any(form in self.verbs for form in (stem, stem + "e", stem[:-1]))
        return lemma.endswith("s") and not self.nouns[lemma] and self.verbs[lemma[:-1]] >= 5


def choose_senses(folder: Path, synsets: dict[str, Synset], classes: set[str], tags: Tags) -> dict[str, str]:
    """Return the main synset of each lemma; individuals are excluded unless they are classes of ImageNet."""
    chosen = {}
    for lemma, senses in read_senses(folder).items():
        named = [synset for synset in senses if not synsets[synset].is_individual or synset in classes]
        if not named or lemma in FUNCTION_WORDS:
            continue
        if not tags.nouns[lemma]:  # without tags their order is arbitrary
            named.sort(key=lambda synset: synset not in classes)
        things = [synset for synset in named if synsets[synset].branch in THINGS]
        chosen[lemma] = named[0]
        if things and 0 < tags.senses[lemma, named[0]] <= 3 * tags.senses[lemma, things[0]]:
            chosen[lemma] = things[0]
    for lemma in [lemma for lemma in chosen if lemma.endswith("s") and tags.nouns[lemma[:-1]]]:
        # "glasses" is a separate word; "shoes" is the plural of "shoe", although it has an abstract sense.
        is_own = tags.nouns[lemma] and synsets[chosen[lemma]].branch in VISIBLE
        if not is_own and not tags.is_mostly_other(lemma[:-1]):
            del chosen[lemma]
    return chosen


def derive(folder: Path) -> str:
    """Return the table."""
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
