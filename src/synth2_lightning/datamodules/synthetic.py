"""Synthetic pairs: captions with image tokens from shards."""

from collections.abc import Sequence

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from synth2_lightning.datamodules.base import ImageTextDataModule
from synth2_lightning.datamodules.pairs import BatchDataset, PairIndex, Selection
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.types import ImageTextBatch


class ShardPairs(BatchDataset):
    """Rows of shards to learn from: every caption makes a pair of its own.

    Args:
        reader: Loaded.
    """

    def __init__(self, reader: ShardReader) -> None:
        self.reader = reader
        self._pairs = PairIndex(reader.count_captions())

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self._pairs)

    def fingerprint(self) -> str:
        """Checksum of the shards."""
        return self.reader.fingerprint()

    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        """Read pairs, all rows at once."""
        rows, ordinals = self._pairs.locate(indices)
        images = self.reader.read(rows)
        return ImageTextBatch(
            image=images.tokens,
            captions=tuple(texts[ordinal] for texts, ordinal in zip(images.captions, ordinals, strict=True)),
            keys=images.keys,
            sources=images.sources,
        )


def load_to_learn(reader: ShardReader) -> None:
    """Check and map shards that are to be learnt from.

    Raises:
        ValueError: If they are known to come from an evaluation split.
    """
    reader.load()
    if reader.manifest.is_evaluation:
        raise ValueError(
            f"The shards to learn from, {reader.folder}, were made of an evaluation split: what is scored on it "
            "afterwards would mean nothing. Expected shards of pictures and captions that nothing is scored on; make "
            "them of a training split."
        )


class SyntheticDataModule(ImageTextDataModule):
    """Pairs of a caption and image tokens, from a folder of shards; to learn from only.

    To train on nothing else and still be judged by photographs, put it into a ``MixedDataModule`` with a constant share
    of 1.

    Args:
        shards: Folder that ``synth2 predict --config tokenize.yaml``, or a generator, has finished.
        batch_size: Pairs per step and rank.
        num_workers: Processes that read ahead, per rank.
        seed: Order of the pairs.
        limit: Keep the first rows only.
        keep_share: Share of the pairs to keep, of those with the best scores (``synth2 predict --config score.yaml``
            writes them); pairs that score like the last of them are kept as well. 1 keeps all, scored or not.

    Raises:
        ValueError: If ``keep_share`` is not above 0 and up to 1.

    Example:
        >>> SyntheticDataModule("shards/coco", batch_size=256).batch_size
        256
    """

    def __init__(
        self,
        shards: str,
        batch_size: int = 64,
        num_workers: int = 2,
        seed: int = 0,
        limit: int | None = None,
        keep_share: float = 1.0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if not 0.0 < keep_share <= 1.0:
            raise ValueError(f"SyntheticDataModule got keep_share={keep_share}; expected a share above 0 and up to 1.")
        self.reader = ShardReader(shards, limit)
        self.keep_share = keep_share

    def setup(self, stage: str) -> None:
        """Check and map the shards where they are to be learnt from.

        Raises:
            ValueError: If they are known to come from an evaluation split.
        """
        super().setup(stage)
        if stage == "fit":
            load_to_learn(self.reader)

    def make_train_pairs(self) -> BatchDataset:
        """Give the pairs of image tokens and one of their captions, the best share of them.

        Raises:
            ValueError: If not all are to be kept and they have no scores.
        """
        pairs = ShardPairs(self.reader)
        if self.keep_share == 1:
            return pairs
        scores = self.reader.read_scores()
        # By the score alone, not by the order of the rows: that is another one where other ranks wrote them.
        num_kept = max(1, round(self.keep_share * len(scores)))
        lowest = np.partition(scores, -num_kept)[-num_kept]
        kept = np.flatnonzero(scores >= lowest)
        rank_zero_info(
            f"{len(kept)} of the {len(scores)} pairs of {self.reader.folder} are learnt from, those with a score of at "
            f"least {lowest:.4g} (keep_share={self.keep_share})"
        )
        return Selection(pairs, kept)
