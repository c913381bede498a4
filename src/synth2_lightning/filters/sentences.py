"""The first sentences of an answer, and captions that break off."""

import re
from typing import Any

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.types import CaptionRecord, Verdict

_END = re.compile(
    r"(?<!\b[A-Z]\.)(?<!\bDr\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bMrs\.)(?<!\bSt\.)"
    r"(?:(?<=[.!?])|(?<=[.!?][\"')]))\s+(?=[\"'(]?[A-Z])"
)
_DANGLING = re.compile(r"(?:[,;:-]|\b(?:an?|the|and|or|of|with|its|their|his|as|at|from|into|is|are))$", re.IGNORECASE)


class SentenceTrimmer(RecordFilter):
    """Keeps the first sentences, drops an unfinished one after them, and rejects a caption that breaks off.

    Language models that are cut at a number of tokens leave half a sentence. What follows the first sentence or two of
    a small model is seldom in the picture.

    Args:
        max_sentences: How many sentences to keep, from 1.

    Raises:
        ValueError: If the number is out of range.

    Example:
        >>> SentenceTrimmer().judge_one(CaptionRecord("a", "A dog runs. It is happy. The sky is")).caption
        'A dog runs. It is happy.'
        >>> SentenceTrimmer().judge_one(CaptionRecord("a", "A dog runs across the")).reason
        'breaks off'
    """

    def __init__(self, max_sentences: int = 2) -> None:
        if max_sentences < 1:
            raise ValueError(f"SentenceTrimmer got max_sentences={max_sentences}; expected 1 or more.")
        self.max_sentences = max_sentences

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Cut the caption."""
        sentences = _END.split(record.caption.strip())
        is_open = not sentences[-1].rstrip("\"')").endswith((".", "!", "?"))
        if is_open and len(sentences) > 1:
            sentences.pop()
            is_open = False
        caption = " ".join(sentences[: self.max_sentences])
        breaks_off = _DANGLING.search(caption) or (is_open and record.is_cut)
        return Verdict(caption, "breaks off" if breaks_off else "")

    def provenance(self) -> dict[str, Any]:
        """Give the number of sentences."""
        return {"max_sentences": self.max_sentences}
