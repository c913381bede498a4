"""Filter of captions with out-of-vocabulary words."""

from functools import cached_property
from pathlib import Path
from typing import Any

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.io.fingerprints import fingerprint_file
from synth2_lightning.io.locations import resolve
from synth2_lightning.types import CaptionRecord, Verdict


class VocabularyFilter(RecordFilter):
    """Rejects captions with out-of-vocabulary words, on which a captioner would learn to generate ``<unk>``.

    Out-of-vocabulary punctuation, such as a full stop, is removed.

    Args:
        tokenizer: Folder of the captioner's ``tokenizer.json``, such as one written by `synth2 vocabulary`: a path, or
            ``package://PACKAGE/PATH``.

    Example:
        >>> vocabulary = VocabularyFilter("package://synth2_lightning/scenes/vocabulary")
        >>> vocabulary.judge_one(CaptionRecord("a", "A red circle above a ring.")).caption
        'A red circle above a ring'
        >>> vocabulary.judge_one(CaptionRecord("a", "A red teapot above a ring.")).reason
        'has an unknown word'
    """

    def __init__(self, tokenizer: str) -> None:
        self.tokenizer = tokenizer

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Return the verdict on one caption.

        Raises:
            FileNotFoundError: If the tokenizer does not exist.
            ValueError: If the tokenizer is damaged or has no unknown token.
        """
        unknown = getattr(self._tokenizer.model, "unk_token", None)  # some kinds of models have none
        if unknown is None:
            raise ValueError(
                f"The tokenizer at {self.tokenizer} has no unknown token and can encode every word; VocabularyFilter "
                "expected a tokenizer of whole words. Remove the filter."
            )
        caption = record.caption
        encoding = self._tokenizer.encode(caption)
        for token, (start, end) in reversed(list(zip(encoding.tokens, encoding.offsets, strict=True))):
            if token != unknown:
                continue
            if any(letter.isalnum() for letter in caption[start:end]):
                return Verdict(caption, "has an unknown word")
            caption = f"{caption[:start]} {caption[end:]}"
        return Verdict(" ".join(caption.split()))

    def provenance(self) -> dict[str, Any]:
        """Return the tokenizer's location and fingerprint."""
        return {"tokenizer": self.tokenizer, "fingerprint": fingerprint_file(self._path)[:12]}

    @property
    def _path(self) -> Path:
        return resolve(f"{self.tokenizer}/tokenizer.json", "tokenizer")

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        try:
            return Tokenizer.from_file(str(self._path))
        except Exception as error:  # tokenizers has no class of its own
            raise ValueError(
                f"{self._path} is damaged ({error}); expected a tokenizer.json, as `synth2 vocabulary` writes it."
            ) from error
