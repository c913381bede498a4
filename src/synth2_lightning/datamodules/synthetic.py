"""Datamodule of synthetic pairs: captions and image tokens from shards."""

from collections.abc import Sequence
from zlib import crc32

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from synth2_lightning.datamodules.base import ImageTextDataModule
from synth2_lightning.datamodules.draws import rank_draws
from synth2_lightning.datamodules.mirroring import Mirroring
from synth2_lightning.datamodules.pairs import BatchDataset, PairIndex, Subset, WeightedPairs
from synth2_lightning.datamodules.score_weights import ScoreWeights
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

    An image with several captions is as many pairs: each of its captions is used once in a pass, as with photos.

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
        best_draws: Number of images to keep of each caption, those with the highest scores, before ``keep_fraction``
            applies; for captions with several images (``num_per_caption``). ``None`` keeps all.
        weights: Weights of the losses of the kept pairs by their scores; ``None`` weights all equally, and needs no
            scores.
        mirroring: Mirrors each training image with probability 1/2 in each pass over the pairs; ``None`` mirrors none.

    Raises:
        ValueError: If ``keep_fraction`` is not above 0 and at most 1, or ``best_draws`` is below 1.
    """

    def __init__(
        self,
        shards: str,
        batch_size: int = 64,
        num_workers: int = 2,
        seed: int = 0,
        limit: int | None = None,
        keep_fraction: float = 1.0,
        best_draws: int | None = None,
        weights: ScoreWeights | None = None,
        mirroring: Mirroring | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, seed, mirroring)
        if not 0.0 < keep_fraction <= 1.0:
            raise ValueError(
                f"SyntheticDataModule got keep_fraction={keep_fraction}; expected a fraction above 0 and at most 1."
            )
        if best_draws is not None and best_draws < 1:
            raise ValueError(
                f"SyntheticDataModule got best_draws={best_draws}; expected 1 or more images of each caption, or null "
                "for all of them."
            )
        self.reader = ShardReader(shards, limit)
        self.keep_fraction = keep_fraction
        self.best_draws = best_draws
        self.weights = weights

    def setup(self, stage: str) -> None:
        """Load the shards in ``fit``; see :func:`load_for_training`."""
        super().setup(stage)
        if stage == "fit":
            load_for_training(self.reader)

    def make_train_pairs(self) -> BatchDataset:
        """Return the pairs of image tokens and a caption, selected and weighted by their scores.

        Raises:
            ValueError: If the pairs are selected or weighted by scores and have none.
        """
        pairs: BatchDataset = ShardPairs(self.reader)
        if self.keep_fraction == 1 and self.best_draws is None and self.weights is None:
            return pairs
        scores = self.reader.read_scores()
        if not len(scores):
            raise ValueError(
                f"The shards in {self.reader.folder} have no captions; expected pairs with scores, to select or weight "
                "them. Use other shards (data.synthetic.shards)."
            )
        if self.keep_fraction < 1 or self.best_draws is not None:
            kept = self._select(scores)
            pairs, scores = Subset(pairs, kept), scores[kept]
        if self.weights is not None:
            weights = self.weights(scores)
            effective = weights.sum(dtype=np.float64) ** 2 / np.square(weights, dtype=np.float64).sum()
            rank_zero_info(
                f"The losses of {len(weights)} pairs of {self.reader.folder} have weights from {weights.min():.3g} to "
                f"{weights.max():.3g}, which count as {effective:.0f} equally weighted pairs"
            )
            pairs = WeightedPairs(pairs, weights)
        return pairs

    def _select(self, scores: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the pairs to keep."""
        # Select by score and key only, because the order of the rows depends on the ranks that wrote them.
        kept = np.arange(len(scores))
        if self.best_draws is not None:
            kept = np.flatnonzero(rank_draws(self.reader, scores) < self.best_draws)
            rank_zero_info(
                f"{len(kept)} of the {len(scores)} pairs of {self.reader.folder} are the best {self.best_draws} of "
                "their captions"
            )
        if self.keep_fraction == 1:
            return kept
        num_kept = max(1, round(self.keep_fraction * len(kept)))
        lowest = np.partition(scores[kept], -num_kept)[-num_kept]
        best: NDArray[np.int64] = kept[scores[kept] >= lowest]
        rank_zero_info(
            f"{len(best)} of the {len(kept)} pairs of {self.reader.folder} are used, those with a score of at "
            f"least {lowest:.4g} (keep_fraction={self.keep_fraction})"
        )
        return best
