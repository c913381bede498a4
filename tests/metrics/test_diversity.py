import pytest

from synth2_lightning.metrics.diversity import measure_distinct_n, measure_self_bleu, measure_words


def test_words_are_counted_without_case_and_punctuation() -> None:
    figures = measure_words(["A dog runs.", "a dog, a cat"])
    assert figures.word_counts == {"a": 3, "dog": 2, "runs": 1, "cat": 1}
    assert figures.lengths == {3: 1, 4: 1}
    assert figures.entropy == pytest.approx(1.8424, abs=1e-4)
    assert figures.distinct == (4 / 7, 4 / 5, 1)


def test_a_caption_without_a_word_has_the_length_zero() -> None:
    figures = measure_words(["...", "a red dog"])
    assert (figures.lengths, figures.mean_length) == ({0: 1, 3: 1}, 1.5)
    assert figures.distinct == measure_words(["a red dog"]).distinct


def test_captions_without_a_word_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 captions.* word"):
        measure_words([".", "!"])


def test_bleu_equals_nltk_with_smoothing_method_1() -> None:
    # Sentence BLEU of nltk 3.10 for either caption against the other.
    captions = ["a dog runs", "a dog sits here"]  # whichever is the hypothesis
    scores = {measure_self_bleu(captions, seed=seed) for seed in range(10)}
    assert sorted(scores) == pytest.approx([0.16990442448471224, 0.17216896116316355])


def test_precision_is_clipped_at_the_highest_count_of_any_reference() -> None:
    scores = {measure_self_bleu(["dog dog", "dog"] * 20, num_hypotheses=1, seed=seed) for seed in range(10)}
    assert sorted(scores) == pytest.approx([0.1 ** (3 / 4), 0.1 ** (2 / 4)])  # n-grams of 1 word match, or of 1 and 2


def test_self_bleu_is_low_for_disjoint_captions_and_high_for_copies() -> None:
    strangers = [f"w{number}a w{number}b w{number}c w{number}d w{number}e" for number in range(40)]
    assert measure_self_bleu(strangers) < 0.05
    assert measure_self_bleu(["a dog runs in the snow"] * 40) == pytest.approx(1)


def test_samples_depend_on_the_seed() -> None:
    captions = [f"a {color} dog runs over {thing}" for color in ("red", "blue", "black") for thing in "abcdefgh"]
    first, again, other = (measure_self_bleu(captions, 5, 5, seed) for seed in (0, 0, 3))
    assert first == again
    assert first != other


def test_one_caption_has_no_self_bleu() -> None:
    with pytest.raises(ValueError, match=r"Self-BLEU.* 1 captions"):
        measure_self_bleu(["a dog"])


def test_length_and_distinct_fractions_of_any_captions() -> None:
    assert measure_distinct_n(["A dog, a cat.", "!"]) == {"length": 2.0, "distinct_1": 0.75, "distinct_2": 1.0}
    assert set(measure_distinct_n(["", "."]).values()) == {0.0}
    assert set(measure_distinct_n([]).values()) == {0.0}
