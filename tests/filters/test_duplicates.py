import random

import pytest

from synth2_lightning.filters.duplicates import ExactDuplicates, NearDuplicates
from synth2_lightning.filters.words import join_ngrams, measure_jaccard, split_words
from synth2_lightning.types import CaptionRecord

THINGS = ("dog", "cat", "horse", "boat", "kite", "lamp", "tree", "cup", "road", "hat")


def make_records(*captions: str) -> list[CaptionRecord]:
    return [CaptionRecord(str(number), caption) for number, caption in enumerate(captions)]


def judge_near(judge: NearDuplicates, *captions: str) -> list[bool]:
    return [bool(verdict.reason) for verdict in judge.judge(make_records(*captions))]


def test_the_first_of_the_same_words_stays() -> None:
    verdicts = ExactDuplicates().judge(make_records("A dog.", "a  DOG !", "A dög", "dog a", "A dog."))
    assert [bool(verdict.reason) for verdict in verdicts] == [False, True, True, False, True]
    assert ExactDuplicates().provenance() == {}


def test_captions_with_most_runs_in_common_go() -> None:
    base = "a brown dog runs over the green grass beside a lake"
    assert judge_near(
        NearDuplicates(), base, base.replace("lake", "pond"), base.replace("green", "wet"), "two cats sleep"
    ) == [False, True, False, False]


def test_a_chain_of_small_changes_is_measured_against_what_was_kept() -> None:
    words = [f"word{number}" for number in range(20)]
    chain = [" ".join([f"new{number}" for number in range(changed)] + words[changed:]) for changed in range(0, 8, 2)]
    assert judge_near(NearDuplicates(), *chain) == [False, True, False, True]


def test_every_rejection_has_a_near_one_before_it_and_few_are_missed() -> None:
    draw = random.Random(0)
    captions = [
        "the old "
        + " ".join(f"{draw.choice(THINGS)} {draw.choice(('by', 'on', 'and'))}" for _ in range(draw.choice((3, 4))))
        for _ in range(400)
    ]
    runs = [set(join_ngrams(split_words(caption), 2)) for caption in captions]
    rejected = judge_near(NearDuplicates(threshold=0.6), *captions)
    kept: list[int] = []
    num_missed = 0
    for index, is_rejected in enumerate(rejected):
        is_near = any(measure_jaccard(runs[index], runs[other]) >= 0.6 for other in kept)
        assert is_near or not is_rejected
        num_missed += is_near and not is_rejected
        if not is_rejected:
            kept.append(index)
    assert sum(rejected) > 30
    assert num_missed <= 0.1 * sum(rejected)


def test_short_and_empty_captions_are_compared_entirely() -> None:
    assert judge_near(NearDuplicates(ngram_size=3), "dog", "Dog!", "dogs", "", "") == [False, True, False, False, True]
    assert NearDuplicates().judge([]) == []


def test_provenance_has_the_arguments_and_bad_ones_are_refused() -> None:
    assert NearDuplicates(0.8, 3, 64, 7).provenance() == {
        **{"threshold": 0.8, "ngram_size": 3},
        **{"num_permutations": 64, "seed": 7},
    }
    with pytest.raises(ValueError, match=r"NearDuplicates.*threshold=1\.0"):
        NearDuplicates(threshold=1.0)
    message = r"ngram_size=0.*num_permutations=1"
    with pytest.raises(ValueError, match=message):
        NearDuplicates(ngram_size=0, num_permutations=1)


def test_too_few_permutations_for_a_threshold_are_named() -> None:
    with pytest.raises(ValueError, match=r"threshold=0\.9,.*num_permutations=8.*[Ee]xpected more"):
        NearDuplicates(threshold=0.9, num_permutations=8).find_rejected(["a dog"])
