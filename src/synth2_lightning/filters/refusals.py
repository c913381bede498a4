"""Filter of refusals and of answers about the language model."""

import re
from dataclasses import dataclass
from functools import cached_property

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


@dataclass(frozen=True)
class RefusalFilter(RecordFilter):
    """Rejects refusals and answers without words.

    Args:
        marker: Answer that the prompt requests for words that cannot be depicted; captions that start with it are
            rejected, ignoring case.

    Raises:
        ValueError: If ``marker`` contains no letter.

    Example:
        >>> [RefusalFilter().judge_one(CaptionRecord("a", text)).reason for text in ("WRONG! No object.", "A dog.")]
        ['refuses by the marker', '']
    """

    marker: str = "WRONG"

    def __post_init__(self) -> None:
        if not any(map(str.isalpha, self.marker)):
            raise ValueError(f"RefusalFilter got marker={self.marker!r}; expected the word that the prompt requests.")

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(rf"\W*{re.escape(self.marker.strip())}(?!\w)", re.IGNORECASE)

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Return the verdict on one caption."""
        caption = straighten_quotes(record.caption)
        if not any(map(str.isalnum, caption)):
            return Verdict(record.caption, "without a word")
        if self._pattern.match(caption):
            return Verdict(record.caption, "refuses by the marker")
        return Verdict(record.caption, "refuses in words" if _DECLINES.search(caption) else "")
