"""Datamodule of photos that were tokenized in advance, with human captions."""

from collections.abc import Sequence

import numpy as np

from synth2_lightning.datamodules.mirroring import Mirroring
from synth2_lightning.datamodules.real import RealDataModule
from synth2_lightning.datamodules.synthetic import ShardPairs, load_for_training
from synth2_lightning.interfaces import ImageEncoder, ImageTextSource
from synth2_lightning.io.fingerprints import hash_record
from synth2_lightning.shards.reader import ShardReader


class TokenizedDataModule(RealDataModule):
    """Datamodule that trains on image tokens of photos and evaluates on photos.

    As a :class:`~synth2_lightning.datamodules.real.RealDataModule`, it can be mixed with synthetic pairs: training then
    uses image tokens only, as in Synth² (arXiv 2403.07750).

    Args:
        shards: Finished shard folder of ``synth2 predict --config tokenize.yaml``.
        val: Validation photos.
        test: Test photos.
        batch_size: Pairs per step and rank.
        val_batch_size: Images per batch and rank in validation and test.
        image_encoder: Encoder of the model, whose input size the photos get in validation and test.
        num_workers: Number of data loader worker processes per rank.
        max_bad_images: Maximum number of unreadable images, of 1,000 in succession, that a rank replaces by others.
        seed: Seed of the order of the training pairs.
        photos: Photos whose rows to train on, in their order, given by source and key; no image of them is read.
            ``None`` uses all rows.
        limit: Maximum number of these rows: those with the lowest hashes of source and key, a sample that does not
            depend on how the shards were written. ``None`` uses all.
        mirroring: Mirrors each training image with probability 1/2 in each pass over the pairs; ``None`` mirrors none.

    Raises:
        ValueError: If the limit is below 1.
    """

    def __init__(  # noqa: PLR0913 - two sources of photos and a selection of rows, all optional
        self,
        shards: str,
        val: ImageTextSource | None = None,
        test: ImageTextSource | None = None,
        batch_size: int = 64,
        val_batch_size: int = 64,
        image_encoder: ImageEncoder | None = None,
        num_workers: int = 2,
        max_bad_images: int = 10,
        seed: int = 0,
        photos: ImageTextSource | None = None,
        limit: int | None = None,
        mirroring: Mirroring | None = None,
    ) -> None:
        super().__init__(
            val=val,
            test=test,
            batch_size=batch_size,
            val_batch_size=val_batch_size,
            image_encoder=image_encoder,
            num_workers=num_workers,
            max_bad_images=max_bad_images,
            seed=seed,
            mirroring=mirroring,
        )
        if limit is not None and limit < 1:
            raise ValueError(
                f"TokenizedDataModule got limit={limit}; expected 1 or more rows, or null for all of them."
            )
        self.reader = ShardReader(shards)
        self.photos = photos
        self.limit = limit

    @property
    def has_train(self) -> bool:
        """Whether there are training pairs: always."""
        return True

    def setup(self, stage: str) -> None:
        """Load the sources that the stage needs, and the shards in ``fit``; see :func:`load_for_training`."""
        super().setup(stage)
        if stage == "fit":
            load_for_training(self.reader)
            if self.photos is not None:
                self.photos.load()

    def make_train_pairs(self) -> ShardPairs:
        """Return the pairs of image tokens and a caption.

        Raises:
            ValueError: If a photo has no row.
        """
        if self.photos is None and self.limit is None:
            return ShardPairs(self.reader)
        names = self.reader.read_keys()
        rows = range(len(names)) if self.photos is None else self._find_rows(self.photos, names)
        if self.limit is not None:
            rows = sorted(rows, key=lambda row: hash_record(names[row]))[: self.limit]
        return ShardPairs(self.reader, np.array(rows, dtype=np.int64))

    def _find_rows(self, photos: ImageTextSource, names: Sequence[tuple[str, str]]) -> Sequence[int]:
        """Return the row of each photo."""
        rows = {name: row for row, name in enumerate(names)}
        wanted = [(photos.name, photos.key(index)) for index in range(len(photos))]
        if missing := [name for name in wanted if name not in rows]:
            raise ValueError(
                f"{len(missing)} of the {len(photos)} photos have no row in {self.reader.folder}, such as {missing[0]} "
                f"(source and key); the first row is {names[0]}. Expected the shards of these photos: tokenize them "
                "with `synth2 predict --config tokenize.yaml`, with the same source and name."
            )
        return [rows[name] for name in wanted]
