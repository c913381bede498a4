"""Truncation to the first sentences, and rejection of unfinished captions."""

import re
from dataclasses import dataclass

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.types import CaptionRecord, Verdict

_END = re.compile(
    r"(?<!\b[A-Z]\.)(?<!\bDr\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bMrs\.)(?<!\bSt\.)"
    r"(?:(?<=[.!?])|(?<=[.!?][\"')]))\s+(?=[\"'(]?[A-Z])"
)
_DANGLING = re.compile(r"(?:[,;:-]|\b(?:an?|the|and|or|of|with|its|their|his|as|at|from|into|is|are))$", re.IGNORECASE)


@dataclass(frozen=True)
class SentenceTrimmer(RecordFilter):
    """Keeps the first complete sentences, and rejects captions without one.

    A token limit leaves an unfinished sentence. Small models rarely describe the image after the first two sentences.

    Args:
        max_sentences: Maximum number of sentences, from 1.

    Raises:
        ValueError: If ``max_sentences`` is below 1.

    Example:
        >>> SentenceTrimmer().judge_one(CaptionRecord("a", "A dog runs. It is happy. The sky is")).caption
        'A dog runs. It is happy.'
        >>> SentenceTrimmer().judge_one(CaptionRecord("a", "A dog runs across the")).reason
        'breaks off'
    """

    max_sentences: int = 2

    def __post_init__(self) -> None:
        if self.max_sentences < 1:
            raise ValueError(f"SentenceTrimmer got max_sentences={self.max_sentences}; expected 1 or more.")

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Return the verdict with the shortened caption."""
        sentences = _END.split(record.caption.strip())
        is_open = not sentences[-1].rstrip("\"')").endswith((".", "!", "?"))
        if is_open and len(sentences) > 1:
            sentences.pop()
            is_open = False
        caption = " ".join(sentences[: self.max_sentences])
        breaks_off = _DANGLING.search(caption) or (is_open and not record.is_complete)
        return Verdict(caption, "breaks off" if breaks_off else "")
