import random

from synth2_lightning.reports.set_statistics import find_near_duplicates


def test_results_equal_a_comparison_of_all_pairs() -> None:
    draw = random.Random(0)
    words = [f"w{number}" for number in range(30)]
    captions = [" ".join(draw.sample(words, 10)) for _ in range(100)]
    captions += [caption.rsplit(" ", 1)[0] + " other" for caption in captions[:20]]  # nine of eleven words are equal
    sets = [frozenset(caption.split()) for caption in captions]
    exact = [
        any(len(one & other) / len(one | other) >= 0.8 for row, other in enumerate(sets) if row != number)
        for number, one in enumerate(sets)
    ]
    assert sum(exact) >= 40
    assert find_near_duplicates(captions) == exact


def test_copies_are_duplicates_but_a_caption_is_not_one_of_itself() -> None:
    assert find_near_duplicates(["a dog runs", "two cats", "a dog runs"]) == [True, False, True]


def test_captions_without_words_are_compared_too() -> None:
    assert find_near_duplicates(["...", "a dog", "!"]) == [True, False, True]
