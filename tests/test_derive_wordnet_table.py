"""The rules by which examples/derive_wordnet_table.py selects the sense of a word, on a dictionary of a few lines."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

# id, lexicographer file, word, hypernym, pointer
SYNSETS = """00000001 03 entity
00000002 06 table 00000001 @
00000003 14 table 00000001 @
00000004 06 shoe 00000001 @
00000005 26 shoes 00000001 @
00000006 18 Crane 00000001 @i
00000007 05 crane 00000001 @
00000008 06 spectacles 00000001 @
00000009 06 glass 00000001 @
00000010 07 look 00000001 @
00000011 06 look 00000001 @
00000012 04 jumping 00000001 @
00000013 13 eats 00000001 @
"""
SENSES = {  # lemma: synsets in order, with their tag counts
    "table": {"00000003": 50, "00000002": 20},
    "shoe": {"00000004": 9},
    "shoes": {"00000005": 1},
    "crane": {"00000006": 0, "00000007": 0},
    "glasses": {"00000008": 4},
    "glass": {"00000009": 30},
    "look": {"00000010": 50, "00000011": 2},
    "jumping": {"00000012": 0},
    "eats": {"00000013": 0},
}
VERBS = {"jump": 30, "eat": 40, "look": 400}


@pytest.fixture
def script() -> Iterator[ModuleType]:
    path = Path(__file__).parents[1] / "examples" / "derive_wordnet_table.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[path.stem]


@pytest.fixture
def dictionary(tmp_path: Path) -> Path:
    names = {"03": "Tops", "04": "act", "05": "animal", "06": "artifact", "07": "attribute", "13": "food"}
    names |= {"14": "group", "18": "person", "26": "state"}
    (tmp_path / "lexnames").write_text("".join(f"{number}\tnoun.{name}\t1\n" for number, name in names.items()))
    lines = ["  1 This software and database is being provided to you\n"]
    for line in SYNSETS.splitlines():
        synset, branch, word, *above = line.split()
        pointers = f"001 {above[1]} {above[0]} n 0000" if above else "000"
        lines.append(f"{synset} {branch} n 01 {word} 0 {pointers} | a gloss\n")
    (tmp_path / "data.noun").write_text("".join(lines))
    (tmp_path / "index.noun").write_text(
        "".join(f"{lemma} n {len(of)} 1 @ {len(of)} 1 {' '.join(of)}  \n" for lemma, of in SENSES.items())
    )
    tags = [f"{lemma}%1:00:00:: {key} 1 {count}\n" for lemma, of in SENSES.items() for key, count in of.items()]
    tags += [f"{lemma}%2:00:00:: 00000099 1 {count}\n" for lemma, count in VERBS.items()]
    (tmp_path / "index.sense").write_text("".join(tags))
    return tmp_path


def test_synsets_are_read_with_what_they_are_kinds_of(script: ModuleType, dictionary: Path) -> None:
    synsets = script.read_synsets(dictionary)
    assert len(synsets) == 13
    assert synsets["00000002"] == script.Synset("artifact", "00000001", is_individual=False)
    assert synsets["00000006"] == script.Synset("person", "00000001", is_individual=True)
    assert synsets["00000001"].parent == ""


def test_words_mean_what_can_be_seen(script: ModuleType, dictionary: Path) -> None:
    synsets, tags = script.read_synsets(dictionary), script.Tags(dictionary)
    chosen = script.choose_senses(dictionary, synsets, set(), tags)
    assert chosen["table"] == "00000002"  # furniture, although rows and columns are more frequent
    assert chosen["look"] == "00000010"  # the sense as a thing is much too rare
    assert chosen["crane"] == "00000007"  # not the writer
    assert chosen["glasses"] == "00000008"
    assert "shoes" not in chosen


def test_forms_of_verbs_are_distinguished_from_nouns(script: ModuleType, dictionary: Path) -> None:
    tags = script.Tags(dictionary)
    assert {lemma for lemma in SENSES if tags.is_mostly_other(lemma)} == {"look", "jumping", "eats"}
