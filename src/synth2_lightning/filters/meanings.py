"""Filter of semantic duplicates by sentence embeddings."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from synth2_lightning.interfaces import CaptionFilter, Judge, TextEncoder
from synth2_lightning.nn.pooling import embed_sentences
from synth2_lightning.types import CaptionRecord, Verdict

_NUM_ROWS = 1024
_NUM_COLUMNS = 16384


class SimilarMeanings(CaptionFilter):
    """Keeps the first of captions with similar sentence embeddings.

    Captions are compared with kept captions, block by block; memory is two embeddings per caption.

    Args:
        encoder: Sentence encoder, such as ``PretrainedTextEncoder("weights://all-minilm-l6-v2")``.
        threshold: Minimum cosine similarity of duplicates, above 0 and below 1.

    Raises:
        ValueError: If ``threshold`` is out of range.

    Example:
        >>> from synth2_lightning.testing import TinyTextEncoder
        >>> records = [CaptionRecord("a", "a dog"), CaptionRecord("b", "a dog"), CaptionRecord("c", "two cats")]
        >>> [verdict.reason for verdict in SimilarMeanings(TinyTextEncoder(), threshold=0.99).judge(records)]
        ['', 'means the same as an earlier one', '']
    """

    def __init__(self, encoder: TextEncoder, threshold: float = 0.9) -> None:
        check_threshold("SimilarMeanings", threshold)
        self.encoder = encoder
        self.threshold = threshold

    def start(self) -> Judge:
        """Return a judge that compares captions with those kept before, and stores the embeddings of kept ones."""
        self.encoder.load()
        kept: list[Tensor] = []

        def judge(records: Sequence[CaptionRecord]) -> list[Verdict]:
            embeddings = embed_sentences(self.encoder, [record.caption for record in records])
            before = torch.cat(kept) if kept else embeddings[:0]
            is_kept = keep_apart(embeddings, self.threshold, before)
            kept[:] = [before, embeddings[is_kept]]
            return [
                Verdict(record.caption, "" if is_apart else "means the same as an earlier one")
                for record, is_apart in zip(records, is_kept.tolist(), strict=True)
            ]

        return judge

    def provenance(self) -> dict[str, Any]:
        """Return the encoder's name and the threshold."""
        return {"encoder": self.encoder.name, "threshold": self.threshold}


def check_threshold(name: str, threshold: float) -> None:
    """Raise a ``ValueError`` if a threshold on cosine similarities is not above 0 and below 1."""
    if not 0 < threshold < 1:
        raise ValueError(f"{name} got threshold={threshold}; expected a cosine above 0 and below 1.")


def find_largest_cosines(
    embeddings: Float[Tensor, "rows dim"], others: Float[Tensor, "columns dim"]
) -> Float[Tensor, " rows"]:
    """Return the largest cosine of each unit vector with the others; -1 if there are no others.

    Example:
        >>> find_largest_cosines(torch.eye(2), torch.tensor([[0.6, 0.8]]))
        tensor([0.6000, 0.8000])
    """
    largest = torch.full((len(embeddings),), -1.0)
    for start in range(0, len(embeddings), _NUM_ROWS):
        rows = slice(start, start + _NUM_ROWS)
        for column in range(0, len(others), _NUM_COLUMNS):
            cosines = embeddings[rows] @ others[column : column + _NUM_COLUMNS].T
            largest[rows] = torch.maximum(largest[rows], cosines.amax(1))
    return largest


def keep_apart(
    embeddings: Float[Tensor, "rows dim"], threshold: float, before: Float[Tensor, "columns dim"] | None = None
) -> Bool[Tensor, " rows"]:
    """Greedily select unit vectors, in order, whose cosines with all selected ones are below a threshold.

    Args:
        embeddings: Unit vectors.
        threshold: Upper bound of the cosine.
        before: Vectors selected earlier.

    Example:
        >>> keep_apart(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), 0.7)
        tensor([ True, False,  True])
    """
    is_kept = torch.ones(len(embeddings), dtype=torch.bool)
    kept = torch.empty_like(embeddings)
    num_kept = 0
    for start in range(0, len(embeddings), _NUM_ROWS):
        block = embeddings[start : start + _NUM_ROWS]
        is_apart = find_largest_cosines(block, kept[:num_kept]) < threshold
        if before is not None:
            is_apart &= find_largest_cosines(block, before) < threshold
        is_near = block @ block.T >= threshold
        for row in range(len(block)):
            if is_apart[row]:
                is_apart[row + 1 :] &= ~is_near[row, row + 1 :]
        is_kept[start : start + _NUM_ROWS] = is_apart
        new = block[is_apart]
        kept[num_kept : num_kept + len(new)] = new
        num_kept += len(new)
    return is_kept
