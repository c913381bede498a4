"""Answers in which the language model declines, or talks about itself."""

import re
from typing import Any

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.filters.words import straighten_quotes
from synth2_lightning.types import CaptionRecord, Verdict

_DECLINES = re.compile(
    r"^(?:i(?:'m| am) (?:so |very |really )?sorry|sorry\b|(?:i |my )?apolog)"
    r"|\bi (?:can ?not|can't|could not|couldn't|won't|will not|do not|don't|am not|am unable|must decline)\b"
    r"|\bi'm (?:not|unable)\b"
    r"|\b(?:unable|not able) to (?:provide|write|create|describe|generate|fulfil+|assist|help|answer)\b"
    r"|\bas an? (?:ai|artificial intelligence|language model|assistant)\b"
    r"|\b(?:ai|language) model\b"
    r"|\bplease (?:provide|specify|clarify|give)\b"
    r"|\b(?:not |in)appropriate (?:to|for) (?:describe|depict|a caption)\b",
    re.IGNORECASE,
)


class RefusalFilter(RecordFilter):
    """Rejects refusals, and answers without a word.

    Args:
        marker: What the prompt tells the model to answer where a word cannot be shown in a picture; rejected at the
            beginning of a caption, whatever its case.

    Raises:
        ValueError: If the marker has no letter.

    Example:
        >>> [RefusalFilter().judge_one(CaptionRecord("a", text)).reason for text in ("WRONG! No object.", "A dog.")]
        ['refuses by the marker', '']
    """

    def __init__(self, marker: str = "WRONG") -> None:
        if not any(map(str.isalpha, marker)):
            raise ValueError(f"RefusalFilter got marker={marker!r}; expected a word that the prompt asks for.")
        self.marker = marker
        self._marker = re.compile(rf"\W*{re.escape(marker.strip())}(?!\w)", re.IGNORECASE)

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Look for the marker, then for phrases of refusal."""
        caption = straighten_quotes(record.caption)
        if not any(map(str.isalnum, caption)):
            return Verdict(record.caption, "without a word")
        if self._marker.match(caption):
            return Verdict(record.caption, "refuses by the marker")
        return Verdict(record.caption, "refuses in words" if _DECLINES.search(caption) else "")

    def provenance(self) -> dict[str, Any]:
        """Give the marker."""
        return {"marker": self.marker}
