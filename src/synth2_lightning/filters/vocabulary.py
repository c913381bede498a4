"""Captions with words that a model cannot read."""

from functools import cached_property
from pathlib import Path
from typing import Any

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.fingerprints import fingerprint_file
from synth2_lightning.locations import resolve
from synth2_lightning.types import CaptionRecord, Verdict


class VocabularyFilter(RecordFilter):
    """Rejects captions with words that are not in a vocabulary: a captioner that has it would learn to say ``<unk>``.

    Signs that it lacks, such as the full stop, are taken out.

    Args:
        tokenizer: Folder with the ``tokenizer.json`` of whoever shall read the captions, such as `synth2 vocabulary`
            writes: a path, or ``package://PACKAGE/PATH``.

    Example:
        >>> knows_shapes = VocabularyFilter("package://synth2_lightning/scenes/vocabulary")
        >>> knows_shapes.judge_one(CaptionRecord("a", "A red circle above a ring.")).caption
        'A red circle above a ring'
        >>> knows_shapes.judge_one(CaptionRecord("a", "A red teapot above a ring.")).reason
        'has an unknown word'
    """

    def __init__(self, tokenizer: str) -> None:
        self.tokenizer = tokenizer

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Look for a word that the tokenizer does not know.

        Raises:
            FileNotFoundError: If there is no tokenizer.
            ValueError: If the tokenizer has no sign for unknown words, because it knows all.
        """
        unknown = self._reader.model.unk_token
        if unknown is None:
            raise ValueError(
                f"The tokenizer at {self.tokenizer} can spell every word, so VocabularyFilter would reject nothing; "
                "expected one of whole words. Leave the filter out."
            )
        caption = record.caption
        found = self._reader.encode(caption)
        for token, (start, end) in reversed(list(zip(found.tokens, found.offsets, strict=True))):
            if token != unknown:
                continue
            if any(letter.isalnum() for letter in caption[start:end]):
                return Verdict(caption, "has an unknown word")
            caption = caption[:start] + caption[end:]
        return Verdict(" ".join(caption.split()))

    def provenance(self) -> dict[str, Any]:
        """Give where the tokenizer lies, and a fingerprint of it."""
        return {"tokenizer": self.tokenizer, "fingerprint": fingerprint_file(self._path)[:12]}

    @property
    def _path(self) -> Path:
        return resolve(f"{self.tokenizer}/tokenizer.json", "tokenizer")

    @cached_property
    def _reader(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self._path))
