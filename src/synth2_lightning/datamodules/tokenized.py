"""Datamodule of photos that were tokenized in advance, with human captions."""

from synth2_lightning.datamodules.real import RealDataModule
from synth2_lightning.datamodules.synthetic import ShardPairs, load_for_training
from synth2_lightning.interfaces import ImageEncoder, ImageTextSource
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
        limit: Maximum number of training rows, from the first; ``None`` keeps all.
    """

    def __init__(
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
        limit: int | None = None,
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
        )
        self.reader = ShardReader(shards, limit)

    @property
    def has_train(self) -> bool:
        """Whether there are training pairs: always."""
        return True

    def setup(self, stage: str) -> None:
        """Load the sources that the stage needs, and the shards in ``fit``; see :func:`load_for_training`."""
        super().setup(stage)
        if stage == "fit":
            load_for_training(self.reader)

    def make_train_pairs(self) -> ShardPairs:
        """Return the pairs of image tokens and a caption."""
        return ShardPairs(self.reader)
