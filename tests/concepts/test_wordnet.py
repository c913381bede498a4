import gzip
from importlib.resources import files

import pytest
from timm.data import ImageNetInfo

from synth2_lightning.concepts.wordnet import read_wordnet


@pytest.mark.parametrize("subset", ["imagenet-1k", "imagenet-12k", "imagenet-21k-goog", "imagenet-21k-miil"])
def test_every_class_of_imagenet_is_known_up_to_the_root(subset: str) -> None:
    wordnet = read_wordnet()
    names = ImageNetInfo(subset).label_names()
    assert all(name in wordnet for name in names)
    assert {wordnet.ancestors(name)[-1] for name in names} == {"n00001740"}  # entity


def test_a_dog_is_a_domestic_animal() -> None:
    assert read_wordnet().branch("n02084071") == "animal"
    assert read_wordnet().ancestors("n02084071")[:2] == ["n02083346", "n02075296"]  # canine, carnivore


@pytest.mark.parametrize(
    ("name", "lemma", "branch"),
    [
        ("dogs", "dog", "animal"),
        ("Boxes", "box", "artifact"),
        ("berries", "berry", "food"),
        ("women", "woman", "person"),
        ("men", "man", "person"),
        ("children", "child", "person"),
        ("knives", "knife", "artifact"),
        ("leaves", "leaf", "plant"),
        ("glasses", "glasses", "artifact"),  # eyewear, not several pieces of glass
        ("shoes", "shoe", "artifact"),  # not a state of affairs
        ("tennis_balls", "tennis ball", "artifact"),
        ("Fire  hydrant", "fire hydrant", "artifact"),
        ("table", "table", "artifact"),  # not rows and columns, which are as frequent
        ("grass", "grass", "plant"),
    ],
)
def test_names_are_found_in_the_plural_and_in_any_case(name: str, lemma: str, branch: str) -> None:
    wordnet = read_wordnet()
    assert wordnet.lemma(name) == lemma
    found = wordnet.find(name)
    assert found is not None
    assert wordnet.branch(found) == branch


@pytest.mark.parametrize("name", ["look", "way", "he", "in", "", "xyzzy", "s", "ies"])
def test_what_is_abstract_or_no_noun_is_not_found(name: str) -> None:
    assert read_wordnet().find(name) is None


def test_verbs_and_colors_are_distinguished_from_nouns() -> None:
    nouns = {
        name for name in ("dog", "building", "stand", "red", "jumping", "fly") if read_wordnet().is_mostly_noun(name)
    }
    assert nouns == {"dog", "building"}


def test_a_synset_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="n99999999"):
        read_wordnet().ancestors("n99999999")


def test_the_table_is_small_and_comes_with_its_license() -> None:
    folder = files("synth2_lightning.concepts")
    packed = folder.joinpath("wordnet.tsv.gz").read_bytes()
    assert len(packed) < 500_000
    assert packed[4:8] == bytes(4)  # no timestamp, so that equal tables have equal bytes
    assert len(gzip.decompress(packed).splitlines()) == len(read_wordnet())
    assert "Princeton University" in folder.joinpath("WORDNET_LICENSE.txt").read_text()
