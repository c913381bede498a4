"""Filters of captions that overlap with others: with an evaluation set, or with those a model was trained on."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

from synth2_lightning.filters.base import RecordFilter
from synth2_lightning.filters.duplicates import NearDuplicates, Ngrams
from synth2_lightning.filters.words import join_ngrams, split_words
from synth2_lightning.interfaces import CaptionFilter, CaptionSource, Judge
from synth2_lightning.io.fingerprints import fingerprint_texts
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


class TrainingOverlap(CaptionFilter):
    """Rejects captions that repeat, or nearly repeat, a caption that the language model was trained on.

    The manifest of a caption set has the numbers of both. A repeated caption has the same words, ignoring case, accents
    and punctuation.

    Args:
        captions: Captions of the model's training, such as ``PhotoCaptions`` of its photos.
        near: Similarity of captions that nearly repeat another one.
    """

    def __init__(self, captions: CaptionSource, near: NearDuplicates = NearDuplicates()) -> None:  # noqa: B008 - frozen
        self.captions = captions
        self.near = near

    def start(self) -> Judge:
        """Return a judge that compares each caption with the candidates among the training captions."""
        return self._judge

    def provenance(self) -> dict[str, Any]:
        """Return name, number and fingerprint of the training captions, and the settings of near duplicates."""
        return {**_describe(self.captions), **asdict(self.near)}

    def _judge(self, records: Sequence[CaptionRecord]) -> list[Verdict]:
        ngrams = [self.near.list_ngrams(record.caption) for record in records]
        pairs = zip(records, ngrams, self.near.find_buckets(ngrams), strict=True)
        return [Verdict(record.caption, self._explain(record, own, buckets)) for record, own, buckets in pairs]

    def _explain(self, record: CaptionRecord, ngrams: Ngrams, buckets: Sequence[int]) -> str:
        if tuple(split_words(record.caption)) in self._words:
            return f"repeats a caption of {self.captions.name}"
        references = {reference for bucket in buckets for reference in self._references.get(bucket, ())}
        if any(self.near.are_near(ngrams, reference) for reference in references):
            return f"nearly repeats a caption of {self.captions.name}"
        return ""

    @cached_property
    def _words(self) -> set[tuple[str, ...]]:
        return {tuple(split_words(text)) for text in _read_captions(self.captions)}

    @cached_property
    def _references(self) -> dict[int, list[Ngrams]]:
        """Word n-grams of the training captions, by bucket."""
        ngrams = [self.near.list_ngrams(text) for text in _read_captions(self.captions)]
        members: defaultdict[int, list[Ngrams]] = defaultdict(list)
        for own, buckets in zip(ngrams, self.near.find_buckets(ngrams), strict=True):
            for bucket in buckets:
                members[bucket].append(own)
        return members


def _describe(captions: CaptionSource) -> dict[str, Any]:
    texts = _read_captions(captions)
    return {"captions": captions.name, "num_captions": len(texts), "fingerprint": fingerprint_texts(texts)}


def _read_captions(captions: CaptionSource) -> list[str]:
    captions.load()
    return [captions.record(index).caption for index in range(len(captions))]
