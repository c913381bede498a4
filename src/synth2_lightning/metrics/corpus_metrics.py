"""Corpus-level scores as torchmetrics: rows by image key, gathered from all ranks, without repeats.

The scores themselves are functions, in modules that do not import torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import Metric

from synth2_lightning.metrics.bleu import bleu
from synth2_lightning.metrics.cider import cider
from synth2_lightning.metrics.corpus import CorpusResult, check_references
from synth2_lightning.metrics.document_frequencies import DocumentFrequencies
from synth2_lightning.metrics.java import meteor, spice
from synth2_lightning.metrics.rouge import rouge

Row = tuple[Any, ...]


class KeyedMetric(Metric, ABC):
    """Metric that keeps one row of Python objects per image, its key first, and computes over the rows of all ranks.

    Repeats of a key, which distributed samplers add as padding, are dropped. Rows are sorted by key because
    floating-point sums depend on their order: the result is bitwise independent of the number of ranks. In a
    ``MetricCollection``, pass ``compute_groups=False``: torchmetrics compares states as tensors to find groups.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    rows: list[Row]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", default=[], dist_reduce_fx=None)

    def unique_rows(self) -> list[Row]:
        """Return rows sorted by key, without repeats; of all ranks inside ``sync_context()``.

        Raises:
            ValueError: If there is no row.
        """
        unique: dict[str, Row] = {}
        for row in self.rows:
            self.check_repeat(unique.setdefault(row[0], row), row)
        if not unique:
            raise ValueError(f"{type(self).__name__} has no images; expected at least one. Call update() first.")
        return [unique[key] for key in sorted(unique)]

    def check_repeat(self, first: Row, row: Row) -> None:
        """Check that the first row of a key and another one belong to the same image."""

    # torchmetrics has no public hook for states that are not tensors; its MeanAveragePrecision overrides the same two.
    def _sync_dist(self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any | None = None) -> None:
        group = process_group or self.process_group
        gathered = [self.rows] * dist.get_world_size(group)
        dist.all_gather_object(gathered, self.rows, group=group)
        self.rows = list(chain.from_iterable(gathered))

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = ()) -> nn.Module:
        return super()._apply(fn, exclude_state=(*exclude_state, "rows"))

    @abstractmethod
    def compute(self) -> Any:
        """Return the metric over the images of all ranks."""


class CorpusMetric(KeyedMetric):
    """Metric of texts against reference texts over all ranks, independent of the number of ranks."""

    _score: Callable[[Mapping[str, str], Mapping[str, Sequence[str]]], CorpusResult]

    def update(self, keys: Sequence[str], hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add a batch.

        Args:
            keys: One key per image, the same in all epochs and on all ranks.
            hypotheses: Generated texts, one per image.
            references: Reference texts of each image, at least one.

        Raises:
            ValueError: If the arguments have different lengths, or an image has no references.
        """
        if not len(keys) == len(hypotheses) == len(references):
            raise ValueError(
                f"{type(self).__name__} got {len(keys)} keys, {len(hypotheses)} hypotheses and references of "
                f"{len(references)} images; expected one of each per image."
            )
        for key, hypothesis, texts in zip(keys, hypotheses, references, strict=True):
            check_references(key, texts)
            self.rows.append((key, hypothesis, tuple(texts)))

    def check_repeat(self, first: Row, row: Row) -> None:
        """Check that rows of the same key have the same references.

        Raises:
            ValueError: If they differ.
        """
        if first[2] != row[2]:
            raise ValueError(
                f"Two images share the key {row[0]!r}, but their references differ ({first[2][0]!r}, {row[2][0]!r}). "
                "Expected one key per image; rename one of them."
            )

    def corpus(self) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
        """Return hypotheses and references by key; of all ranks inside ``sync_context()``.

        Raises:
            ValueError: If there is no image, or two images share a key.
        """
        rows = self.unique_rows()
        return {key: hypothesis for key, hypothesis, _ in rows}, {key: texts for key, _, texts in rows}

    def compute(self) -> Any:
        """Return the score of the images of all ranks.

        Raises:
            ValueError: If there is no image, or two images share a key.
        """
        return torch.tensor(self._score(*self.corpus()).score, device=self.device)


class Cider(CorpusMetric):
    """CIDEr-D of a corpus.

    Args:
        frequencies: Document frequencies of a separate reference set. By default they are counted in the references
            of the scored images.

    Example:
        >>> metric = Cider()
        >>> metric.update(["1", "2"], ["a red circle", "a dot"], [["a red circle"], ["two blue squares"]])
        >>> metric.compute()
        tensor(3.7500)
    """

    def __init__(self, frequencies: DocumentFrequencies | None = None) -> None:
        super().__init__()
        self.frequencies = frequencies

    def _score(self, hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> CorpusResult:
        return cider(hypotheses, references, self.frequencies)


class Bleu(CorpusMetric):
    """BLEU-1 to BLEU-4 of a corpus.

    Example:
        >>> metric = Bleu()
        >>> metric.update(["1"], ["a red circle"], [["a red circle on the left", "one red circle"]])
        >>> metric.compute()["bleu_2"]
        tensor(1.)
    """

    def compute(self) -> dict[str, Tensor]:
        """Return ``bleu_1`` to ``bleu_4`` of the images of all ranks."""
        scores = bleu(*self.corpus()).corpus
        return {f"bleu_{n}": torch.tensor(score, device=self.device) for n, score in enumerate(scores, start=1)}


class Rouge(CorpusMetric):
    """ROUGE-L of a corpus."""

    _score = staticmethod(rouge)


class Meteor(CorpusMetric):
    """METEOR of a corpus; each rank starts Java once."""

    _score = staticmethod(meteor)


class Spice(CorpusMetric):
    """SPICE of a corpus; each rank starts Java once."""

    _score = staticmethod(spice)
