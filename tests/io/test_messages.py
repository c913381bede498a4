from synth2_lightning.io.messages import name_first, one_line


def test_texts_are_one_line_of_bounded_length() -> None:
    assert one_line("a\n" * 1000) == "a " * 150 + "…"
    assert one_line(ValueError(" a\n\tb ")) == "a b"
    assert one_line(ValueError("gone.")) == "gone"


def test_other_names_are_mentioned_only_if_there_are_any() -> None:
    assert name_first(iter("abc")) == "a, b, c"
    assert name_first({"a": 1, "b": 2, "c": 3, "d": 4}) == "a, b, c, and others"
    assert name_first([]) == ""
