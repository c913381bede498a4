"""Captions that resemble those of an evaluation set, whose score they would make worthless."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from synth2_lightning.filters.meanings import check_threshold, find_largest_cosines
from synth2_lightning.filters.words import join_ngrams, split_words
from synth2_lightning.fingerprints import fingerprint_texts
from synth2_lightning.interfaces import CaptionFilter, CaptionSource, Judge, TextEncoder
from synth2_lightning.nn.pooling import embed_sentences
from synth2_lightning.types import CaptionRecord, Verdict


class EvaluationOverlap(CaptionFilter):
    """Rejects captions that share a run of words with an evaluation caption.

    Evaluation captions shorter than a run are looked for as a whole: only a caption of the same words is rejected,
    since "a dog runs" is a part of many.

    Args:
        captions: The captions of the evaluation set, such as ``PhotographCaptions`` of its photographs.
        ngram_size: Words of a run, from 2. People describe different photographs in the same words, too: the
            shorter the run, the more captions are rejected that were never seen.

    Raises:
        ValueError: If the number is out of range.

    Example:
        >>> from synth2_lightning.sources.caption_table import CaptionTable
        >>> EvaluationOverlap(CaptionTable("test.parquet", name="test")).ngram_size
        8
    """

    def __init__(self, captions: CaptionSource, ngram_size: int = 8) -> None:
        if ngram_size < 2:
            raise ValueError(f"EvaluationOverlap got ngram_size={ngram_size}; expected runs of 2 or more words.")
        self.captions = captions
        self.ngram_size = ngram_size

    def start(self) -> Judge:
        """Return a function that looks every run of every caption up."""
        return self._judge

    def _judge(self, records: Sequence[CaptionRecord]) -> list[Verdict]:
        runs = self._runs
        reason = f"shares {self.ngram_size} words with {self.captions.name}"
        return [
            Verdict(
                record.caption,
                "" if runs.isdisjoint(join_ngrams(split_words(record.caption), self.ngram_size)) else reason,
            )
            for record in records
        ]

    def provenance(self) -> dict[str, Any]:
        """Give the captions' name, number and fingerprint, and the size of a run."""
        self.captions.load()
        return {
            "captions": self.captions.name,
            "num_captions": len(self.captions),
            "fingerprint": fingerprint_texts(read_captions(self.captions)),
            "ngram_size": self.ngram_size,
        }

    @cached_property
    def _runs(self) -> set[tuple[str, ...]]:
        texts = read_captions(self.captions)
        return {run for text in texts for run in join_ngrams(split_words(text), self.ngram_size)}


class EvaluationSimilarity(CaptionFilter):
    """Rejects captions whose sentence embedding nearly agrees with that of an evaluation caption.

    Args:
        captions: The captions of the evaluation set, such as ``PhotographCaptions`` of its photographs.
        encoder: Embeds sentences, such as ``PretrainedTextEncoder("weights://all-minilm-l6-v2")``.
        threshold: Least cosine of a caption that goes, above 0 and below 1.

    Raises:
        ValueError: If the threshold is out of range.

    Example:
        >>> from synth2_lightning.sources.caption_table import CaptionTable
        >>> from synth2_lightning.testing import TinyTextEncoder
        >>> EvaluationSimilarity(CaptionTable("test.parquet", name="test"), TinyTextEncoder()).threshold
        0.9
    """

    def __init__(self, captions: CaptionSource, encoder: TextEncoder, threshold: float = 0.9) -> None:
        check_threshold("EvaluationSimilarity", threshold)
        self.captions = captions
        self.encoder = encoder
        self.threshold = threshold

    def start(self) -> Judge:
        """Return a function that embeds captions and finds the nearest evaluation caption of each."""
        return self._judge

    def _judge(self, records: Sequence[CaptionRecord]) -> list[Verdict]:
        others = self._embeddings
        embeddings = embed_sentences(self.encoder, [record.caption for record in records])
        is_near = (find_largest_cosines(embeddings, others) >= self.threshold).tolist()
        reason = f"means the same as a caption of {self.captions.name}"
        return [Verdict(record.caption, reason if near else "") for record, near in zip(records, is_near, strict=True)]

    def provenance(self) -> dict[str, Any]:
        """Give the captions' name, number and fingerprint, the encoder's name and the threshold."""
        self.captions.load()
        return {
            "captions": self.captions.name,
            "num_captions": len(self.captions),
            "fingerprint": fingerprint_texts(read_captions(self.captions)),
            "encoder": self.encoder.name,
            "threshold": self.threshold,
        }

    @cached_property
    def _embeddings(self) -> Tensor:
        self.encoder.load()
        return embed_sentences(self.encoder, read_captions(self.captions))


def read_captions(captions: CaptionSource) -> list[str]:
    """Give the texts of a source."""
    captions.load()
    return [captions.record(index).caption for index in range(len(captions))]
