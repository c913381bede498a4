import unicodedata

import pytest

from synth2_lightning.metrics.ptb_characters import from_units, to_units

PLANE = "".join(chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000)


def test_every_character_round_trips() -> None:
    assert from_units(to_units(PLANE)) == PLANE
    assert from_units(to_units("a \U0001f415 and \U0010ffff")) == "a \U0001f415 and \U0010ffff"


def test_characters_are_one_unit_up_to_16_bits_and_two_beyond() -> None:
    assert len(to_units(PLANE)) == len(PLANE)
    assert to_units("\U0001f415") == "\ud83d\udc15"


def test_words_of_modern_scripts_are_unchanged() -> None:
    for text in ("a dog", "café", "собака", "犬", "개", "كلب", "कुत्ता", "“dog” €5…"):
        assert to_units(text) == text


@pytest.mark.parametrize("character", ["\u2010", "\u3008", "\u3200", "\u0529"])
def test_characters_unknown_to_the_jar_are_private_use(character: str) -> None:
    assert unicodedata.category(character) != "Co"
    assert unicodedata.category(to_units(character)) == "Co"  # for private use


def test_half_of_an_emoji_is_replaced() -> None:
    assert from_units("a \ud83d") == "a \N{REPLACEMENT CHARACTER}"
