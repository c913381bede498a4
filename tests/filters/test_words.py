from synth2_lightning.filters.words import join_ngrams, measure_jaccard, split_words, straighten_quotes


def test_case_accents_and_punctuation_count_for_nothing() -> None:
    assert split_words("The CAFÉ’s “open” sign, half-lit: 3 o'clock_sharp!") == [  # noqa: RUF001
        *("the", "cafe's", "open", "sign", "half", "lit", "3", "o'clock", "sharp")
    ]
    assert split_words(" ... ") == []


def test_words_of_other_scripts_are_words() -> None:
    assert split_words("Ёлка и 狗") == ["елка", "и", "狗"]


def test_vowel_signs_distinguish_words() -> None:
    assert split_words("काला किला.") == ["काला", "किला"]
    assert split_words("ป้าย ปาย") != split_words("ปาย ปาย")
    assert split_words("がっこう") != split_words("かっこう")
    pointed, plain = "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd", "\u05e9\u05dc\u05d5\u05dd"  # Hebrew
    assert split_words(pointed) == split_words(plain)
    assert split_words("a_b dog''s -- 'cat'") == ["a", "b", "dog", "s", "cat"]


def test_runs_of_words() -> None:
    assert join_ngrams(["a", "b", "c"], 2) == [("a", "b"), ("b", "c")]
    assert join_ngrams(["a", "b"], 2) == [("a", "b")]
    assert join_ngrams(["a"], 3) == [("a",)]
    assert join_ngrams([], 3) == [()]


def test_jaccard_is_the_fraction_of_what_is_common() -> None:
    one, other = {("a",), ("b",), ("c",)}, {("b",), ("c",), ("d",)}
    assert measure_jaccard(one, other) == measure_jaccard(other, one) == 0.5
    assert measure_jaccard(one, one) == 1
    assert measure_jaccard(one, {("z",)}) == 0


def test_quotes_become_plain() -> None:
    assert straighten_quotes("‘a’ “b” it’s") == "'a' \"b\" it's"  # noqa: RUF001
