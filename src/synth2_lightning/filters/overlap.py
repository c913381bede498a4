"""Filters of captions that overlap with an evaluation set, against data leakage."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.filters.meanings import check_threshold, find_largest_cosines
from synth2_lightning.filters.words import join_ngrams, split_words
from synth2_lightning.interfaces import CaptionFilter, CaptionSource, Judge, TextEncoder
from synth2_lightning.io.fingerprints import fingerprint_texts
from synth2_lightning.nn.pooling import embed_sentences
from synth2_lightning.types import CaptionRecord, Verdict


class EvaluationOverlap(RecordFilter):
    """Rejects captions that have a word n-gram in common with an evaluation caption.

    Evaluation captions shorter than ``ngram_size`` reject only captions with exactly the same words.

    Args:
        captions: Captions of the evaluation set, such as ``PhotoCaptions`` of its photos.
        ngram_size: Words per n-gram, from 2. Different photos may have similar captions: shorter n-grams reject more
            captions without leakage.

    Raises:
        ValueError: If ``ngram_size`` is below 2.
    """

    def __init__(self, captions: CaptionSource, ngram_size: int = 8) -> None:
        if ngram_size < 2:
            raise ValueError(f"EvaluationOverlap got ngram_size={ngram_size}; expected 2 or more words.")
        self.captions = captions
        self.ngram_size = ngram_size

    def judge_one(self, record: CaptionRecord) -> Verdict:
        """Return the verdict on one caption."""
        is_apart = self._ngrams.isdisjoint(join_ngrams(split_words(record.caption), self.ngram_size))
        return Verdict(record.caption, "" if is_apart else f"shares {self.ngram_size} words with {self.captions.name}")

    def provenance(self) -> dict[str, Any]:
        """Return name, number and fingerprint of the evaluation captions, and the n-gram size."""
        return {**_describe(self.captions), "ngram_size": self.ngram_size}

    @cached_property
    def _ngrams(self) -> set[tuple[str, ...]]:
        texts = _read_captions(self.captions)
        return {ngram for text in texts for ngram in join_ngrams(split_words(text), self.ngram_size)}


class EvaluationSimilarity(CaptionFilter):
    """Rejects captions whose sentence embedding is similar to that of an evaluation caption.

    Args:
        captions: Captions of the evaluation set, such as ``PhotoCaptions`` of its photos.
        encoder: Sentence encoder, such as ``PretrainedTextEncoder("weights://all-minilm-l6-v2")``.
        threshold: Minimum cosine similarity of rejected captions, above 0 and below 1.

    Raises:
        ValueError: If ``threshold`` is out of range.
    """

    def __init__(self, captions: CaptionSource, encoder: TextEncoder, threshold: float = 0.9) -> None:
        check_threshold("EvaluationSimilarity", threshold)
        self.captions = captions
        self.encoder = encoder
        self.threshold = threshold

    def start(self) -> Judge:
        """Return a judge that compares each caption with its nearest evaluation caption."""
        return self._judge

    def _judge(self, records: Sequence[CaptionRecord]) -> list[Verdict]:
        embeddings = embed_sentences(self.encoder, [record.caption for record in records])
        is_near = (find_largest_cosines(embeddings, self._embeddings) >= self.threshold).tolist()
        reason = f"means the same as a caption of {self.captions.name}"
        return [Verdict(record.caption, reason if near else "") for record, near in zip(records, is_near, strict=True)]

    def provenance(self) -> dict[str, Any]:
        """Return name, number and fingerprint of the evaluation captions, the encoder's name and the threshold."""
        return {**_describe(self.captions), "encoder": self.encoder.name, "threshold": self.threshold}

    @cached_property
    def _embeddings(self) -> Tensor:
        self.encoder.load()
        return embed_sentences(self.encoder, _read_captions(self.captions))


def _describe(captions: CaptionSource) -> dict[str, Any]:
    texts = _read_captions(captions)
    return {"captions": captions.name, "num_captions": len(texts), "fingerprint": fingerprint_texts(texts)}


def _read_captions(captions: CaptionSource) -> list[str]:
    captions.load()
    return [captions.record(index).caption for index in range(len(captions))]
