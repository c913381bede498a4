import json
from typing import Any

import pytest

from synth2_lightning.io.json_text import decode_text, has_surrogates, parse_json


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_and_json_are_read_in_every_encoding_that_has_a_mark(encoding: str) -> None:
    assert decode_text("ein Hündchen 🐕".encode(encoding)) == "ein Hündchen 🐕"
    assert parse_json('{"caption": "ein Hündchen 🐕"}'.encode(encoding)) == {"caption": "ein Hündchen 🐕"}


def test_a_mark_before_json_that_is_a_text_already_is_dropped() -> None:
    assert parse_json("\ufeff[1]") == [1]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"a dog \ud83d"', "a dog \ufffd"),
        (r'"\udc15 a dog"', "\ufffd a dog"),
        (r'"\ud83d\ud83d\udc15"', "\ufffd🐕"),
        (r'"\uD83D\uDC15"', "🐕"),
        (r'"\\ud83d"', r"\ud83d"),
        (r'{"\udc15": ["\ud83d", 7, null]}', {"\ufffd": ["\ufffd", 7, None]}),
        ('"a dog \ud83d"', "a dog \ufffd"),
        (r'"\\ud83d\ude00"', "\\ud83d\ufffd"),
    ],
)
def test_half_a_character_is_replaced(text: str, value: Any) -> None:
    assert parse_json(text) == value
    json.dumps(parse_json(text), ensure_ascii=False).encode()


@pytest.mark.parametrize("content", [b'"\xed\xa0\xbd"', b'"\xe9"', b"\xff\xfe["])
def test_bytes_that_are_no_text_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="codec can't decode"):
        parse_json(content)


def test_halves_of_characters_are_found() -> None:
    assert has_surrogates("caf\udce9.png")
    assert not has_surrogates("café 🐕.png")
