"""What metrics of a whole corpus share: strings by key, of all ranks, each picture once."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch.distributed as dist
from torch import nn
from torchmetrics import Metric

Row = tuple[Any, ...]


class KeyedMetric(Metric, ABC):
    """A metric that keeps a row per picture, the picture's key first, and computes once over the rows of all ranks.

    Rows are plain Python: torchmetrics gathers tensors, and here ranks hold different numbers of rows with strings in
    them. Repeats of a key (a distributed sampler pads with them) are dropped, and rows are read in the order of the
    keys, because sums of floats depend on their order: no number of ranks changes a bit of the result.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    rows: list[Row]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", default=[], dist_reduce_fx=None)

    def unique_rows(self) -> list[Row]:
        """Rows in the order of their keys, repeats dropped; of all ranks inside ``sync_context()``.

        Raises:
            ValueError: If there is no row.
        """
        unique: dict[str, Row] = {}
        for row in self.rows:
            self.check_repeat(unique.setdefault(row[0], row), row)
        if not unique:
            raise ValueError(f"{type(self).__name__} was asked for over no picture at all; call update() first.")
        return [unique[key] for key in sorted(unique)]

    def check_repeat(self, known: Row, row: Row) -> None:
        """Refuse a row whose key belongs to another picture.

        Args:
            known: The first row of the key.
            row: A row of the same key.
        """

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any | None = None) -> None:
        group = process_group or self.process_group
        gathered: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(gathered, self.rows, group=group)
        self.rows = list(chain.from_iterable(gathered))

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = ()) -> nn.Module:
        # Strings live on no device.
        return super()._apply(fn, exclude_state=(*exclude_state, "rows"))

    @abstractmethod
    def compute(self) -> Any:
        """Compute over the pictures of all ranks."""


class CorpusMetric(KeyedMetric):
    """A metric of what was said of pictures, against what people said of them."""

    def update(self, keys: Sequence[str], hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add pictures.

        Args:
            keys: One id per picture, the same in every epoch and on every rank.
            hypotheses: One text per picture.
            references: What people wrote, per picture; at least one text each.

        Raises:
            ValueError: If the three have different lengths, or a picture has no references.
        """
        if not len(keys) == len(hypotheses) == len(references):
            raise ValueError(
                f"{type(self).__name__} was given {len(keys)} keys, {len(hypotheses)} hypotheses and references of "
                f"{len(references)} pictures; expected one of each per picture."
            )
        for key, hypothesis, texts in zip(keys, hypotheses, references, strict=True):
            check_references(key, texts)
            self.rows.append((key, hypothesis, tuple(texts)))

    def check_repeat(self, known: Row, row: Row) -> None:
        """Refuse a key that belongs to two pictures, by their references.

        Raises:
            ValueError: If the references differ.
        """
        if known[2] != row[2]:
            raise ValueError(
                f"Two pictures share the key {row[0]!r}: their references differ ({known[2][0]!r}, {row[2][0]!r}), and "
                "one of them would be lost. Give every picture a key of its own."
            )

    def corpus(self) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
        """Hypotheses and references by key, repeats dropped; of all ranks inside ``sync_context()``.

        Raises:
            ValueError: If there is no picture, or if two pictures share a key.
        """
        rows = self.unique_rows()
        return {key: hypothesis for key, hypothesis, _ in rows}, {key: texts for key, _, texts in rows}


def check_corpus(name: str, hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    """Refuse a corpus that cannot be scored.

    Args:
        name: Of the score, for the message.
        hypotheses: What was said, by key.
        references: What people said, by key; there may be more of them.

    Raises:
        ValueError: If there is no picture, or one of them has no references.

    Example:
        >>> check_corpus("BLEU", {"1": "a dog"}, {"1": ["a dog runs"], "2": ["a cat"]})
    """
    if not hypotheses:
        raise ValueError(f"{name} was asked for over no picture at all; expected captions with references.")
    for key in hypotheses:
        check_references(key, references.get(key, ()))


def check_references(key: str, texts: Sequence[str]) -> None:
    """Refuse a picture without references, or with a text where a sequence of texts belongs.

    Raises:
        ValueError: If that is so.

    Example:
        >>> check_references("1", ["a dog"])
    """
    if isinstance(texts, str) or not texts:
        raise ValueError(
            f"Picture {key!r} has the references {texts!r}; expected a sequence of at least one caption to be scored "
            "against."
        )
