"""Datamodule of synthetic pairs: captions and image tokens from shards."""

from collections.abc import Sequence
from zlib import crc32

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from synth2_lightning.datamodules.base import ImageTextDataModule
from synth2_lightning.datamodules.pairs import BatchDataset, PairIndex, Selection
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.types import ImageTextBatch


class ShardPairs(BatchDataset):
    """Training pairs of the image tokens of a row and one of its captions.

    Args:
        reader: Loaded reader.
        rows: Numbers of the rows to use, in this order; ``None`` uses all.
    """

    def __init__(self, reader: ShardReader, rows: NDArray[np.int64] | None = None) -> None:
        self.reader = reader
        self.rows = rows
        num_captions = reader.count_captions()
        self._pairs = PairIndex(num_captions if rows is None else num_captions[rows])

    def __len__(self) -> int:
        return len(self._pairs)

    def fingerprint(self) -> str:
        """Return the checksum of the shards, and of the selection of rows if there is one."""
        selection = "" if self.rows is None else f"[{crc32(self.rows.tobytes()):08x}]"
        return f"{self.reader.fingerprint()}{selection}"

    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        """Return a batch of pairs; all rows are read together."""
        rows, ordinals = self._pairs.locate(indices)
        images = self.reader.read(self._select(rows))
        return ImageTextBatch(
            image=images.tokens,
            captions=tuple(texts[ordinal] for texts, ordinal in zip(images.captions, ordinals, strict=True)),
            samples=images.samples,
            references=images.captions,
        )

    def image_captions(self, indices: Sequence[int]) -> list[tuple[str, ...]]:
        """Return all captions of each different row among some pairs."""
        return self.reader.read_captions(self._select(self._pairs.images(indices)))

    def _select(self, rows: list[int]) -> list[int]:
        selected: list[int] = rows if self.rows is None else self.rows[rows].tolist()
        return selected


def load_for_training(reader: ShardReader) -> None:
    """Load the shards of training pairs.

    Raises:
        ValueError: If they come from an evaluation split.
    """
    reader.load()
    if reader.manifest.is_evaluation:
        raise ValueError(
            f"The training shards, {reader.folder}, come from an evaluation split, so that scores on it would be "
            "invalid. Expected shards of a training split; create them from one."
        )


class SyntheticDataModule(ImageTextDataModule):
    """Datamodule of training pairs of a caption and image tokens from a shard folder.

    To train on synthetic pairs only and validate on photos, use it in a ``MixedDataModule`` with a constant fraction of
    1.

    Args:
        shards: Finished shard folder of ``synth2 predict``, with tokenized or generated images.
        batch_size: Pairs per step and rank.
        num_workers: Number of data loader worker processes per rank.
        seed: Seed of the order of the pairs.
        limit: Maximum number of rows, from the first; ``None`` keeps all.
        keep_fraction: Fraction of the pairs to keep, those with the highest scores (written by ``synth2 predict
            --config score.yaml``); pairs with the lowest kept score are all kept. 1 keeps all and needs no scores.

    Raises:
        ValueError: If ``keep_fraction`` is not above 0 and at most 1.
    """

    def __init__(
        self,
        shards: str,
        batch_size: int = 64,
        num_workers: int = 2,
        seed: int = 0,
        limit: int | None = None,
        keep_fraction: float = 1.0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if not 0.0 < keep_fraction <= 1.0:
            raise ValueError(
                f"SyntheticDataModule got keep_fraction={keep_fraction}; expected a fraction above 0 and at most 1."
            )
        self.reader = ShardReader(shards, limit)
        self.keep_fraction = keep_fraction

    def setup(self, stage: str) -> None:
        """Load the shards in ``fit``; see :func:`load_for_training`."""
        super().setup(stage)
        if stage == "fit":
            load_for_training(self.reader)

    def make_train_pairs(self) -> BatchDataset:
        """Return the pairs of image tokens and a caption, filtered by ``keep_fraction``.

        Raises:
            ValueError: If ``keep_fraction`` is below 1 and the pairs have no scores.
        """
        pairs = ShardPairs(self.reader)
        if self.keep_fraction == 1:
            return pairs
        scores = self.reader.read_scores()
        # Select by score only, because the order of the rows depends on the ranks that wrote them.
        num_kept = max(1, round(self.keep_fraction * len(scores)))
        lowest = np.partition(scores, -num_kept)[-num_kept]
        kept = np.flatnonzero(scores >= lowest)
        rank_zero_info(
            f"{len(kept)} of the {len(scores)} pairs of {self.reader.folder} are used, those with a score of at "
            f"least {lowest:.4g} (keep_fraction={self.keep_fraction})"
        )
        return Selection(pairs, kept)
