"""Removal of greetings, labels, quotation marks and Markdown around a caption."""

import re
from dataclasses import dataclass

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.filters.words import straighten_quotes
from synth2_lightning.types import CaptionRecord, Verdict

_FENCE = re.compile(r"^[^\S\n]*```.*$", re.MULTILINE)
_BULLET = re.compile(r"^\s*(?:#{1,6}|[-*+>•]|\d{1,2}[.)])\s+")
_EMPHASIS = re.compile(r"(\*{1,3}|_{1,3}|`)(?=\S)((?:(?!\1).)+)(?<=\S)\1")
# Only up to a colon: "Sure, a dog is on the bed" may be the whole caption.
_GREETING = re.compile(
    r"^(?:(?:sure|certainly|of course|absolutely|okay|ok|great|yes)\b[^:]{0,80}:"
    r"|(?:here(?:'s| is| are)|below is|the following is)\b[^:]{0,80}:"
    r"|this is (?:a|the|my) (?:caption|description|sentence|response)\b[^:]{0,60}:"
    r"|(?:sure|certainly|of course|absolutely)(?: thing)?!)\s*",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"^(?:(?:the |a |my )?(?:(?:image|photo|picture|possible|short|suggested|final) )?"
    r"(?:caption|description|sentence|answer|response|output|photo|image|picture|title|alt text|option)s?|assistant"
    r"|(?:图片|图像|照片)?(?:描述|标题|说明|答案))"
    r"(?: \d+| for [^:.!?]{1,60})?\s*(?:[:\uff1a]\s*|\Z)",
    re.IGNORECASE,
)
_QUESTION = re.compile(r"^(?:object|word|class|name|subject|topic|user|prompt)s?\s*:.*$", re.IGNORECASE)
# Before an article or a number, the remainder is a complete caption.
_LEAD = re.compile(
    r"^(?:the|this) (?:image|photo|photograph|picture) (?:shows|depicts|features|displays|captures|portrays|is of) "
    r"(?=(?:an?|the|one|two|three|four|five|several|some|many)\b)",
    re.IGNORECASE,
)


_QUOTES = {'"': '"', "'": "'", "«": "»", "「": "」", "『": "』"}  # typographic ones were replaced before


@dataclass(frozen=True)
class PreambleStripper(RecordFilter):
    r"""Reduces an answer to the caption: the first line with a letter or digit after the removal of the preamble.

    Removes "Sure, here is a caption:", "Caption:", quotation marks around the caption, Markdown with its headings and
    rules, a repeated question ("Word: dog"), and "The image shows" before an article or a number. Typographic quotation
    marks become ASCII ones.

    Example:
        >>> answer = "Sure! Here is a caption for you:\n\n**Caption:** \"A dog runs on the beach.\""
        >>> PreambleStripper().judge_one(CaptionRecord("a", answer)).caption
        'A dog runs on the beach.'
    """

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Return the verdict with the caption, or a rejection."""
        for line in straighten_quotes(_FENCE.sub("", record.caption)).splitlines():
            if any(map(str.isalnum, caption := _strip_line(line))):
                return Verdict(caption)
        return Verdict(record.caption, "nothing but a preamble")


def _strip_line(line: str) -> str:
    caption = " ".join(_EMPHASIS.sub(r"\2", _BULLET.sub("", line)).split())
    if _QUESTION.match(caption):
        return ""
    before = None
    while caption != before:
        before = caption
        for pattern in (_GREETING, _LABEL):
            caption = pattern.sub("", caption).strip()
        caption = _unquote(caption)
    shown = _LEAD.sub("", caption)
    return caption if shown == caption else shown[0].upper() + shown[1:]


def _unquote(text: str) -> str:
    end = _QUOTES.get(text[:1], "")
    if len(text) < 2 or text[-1] != end or text[0] in text[1:-1] or end in text[1:-1]:
        return text
    return text[1:-1].strip()
