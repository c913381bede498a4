"""Photographs that were made into image tokens beforehand, with human captions."""

from synth2_lightning.datamodules.real import RealDataModule
from synth2_lightning.datamodules.synthetic import ShardPairs, load_to_learn
from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.shards.reader import ShardReader


class TokenizedDataModule(RealDataModule):
    """Learns from the tokens of photographs, is judged by photographs: the encoder's work on the first is done once.

    It is a :class:`~synth2_lightning.datamodules.real.RealDataModule`, so it can be mixed with synthetic pairs: then
    all of training takes place in token space, as in Synth² (arXiv 2403.07750).

    Args:
        shards: Folder that ``synth2 predict --config tokenize.yaml`` has finished.
        val: Photographs for validation.
        test: Photographs for the test.
        batch_size: Pairs per step and rank.
        val_batch_size: Pictures per batch and rank in validation and test.
        image_size: Height and width in pixels of the photographs in validation and test.
        num_workers: Processes that read ahead, per rank.
        max_bad_pictures: How many unreadable pictures a rank replaces by others before it stops.
        seed: Order of the training pairs.
        limit: Learn from the first rows only.

    Example:
        >>> TokenizedDataModule("shards/flickr8k", limit=1000).has_train
        True
    """

    def __init__(
        self,
        shards: str,
        val: ImageTextSource | None = None,
        test: ImageTextSource | None = None,
        batch_size: int = 64,
        val_batch_size: int = 64,
        image_size: int = 224,
        num_workers: int = 2,
        max_bad_pictures: int = 10,
        seed: int = 0,
        limit: int | None = None,
    ) -> None:
        super().__init__(
            val=val,
            test=test,
            batch_size=batch_size,
            val_batch_size=val_batch_size,
            image_size=image_size,
            num_workers=num_workers,
            max_bad_pictures=max_bad_pictures,
            seed=seed,
        )
        self.reader = ShardReader(shards, limit)

    @property
    def has_train(self) -> bool:
        """Whether there is something to learn from: always."""
        return True

    def setup(self, stage: str) -> None:
        """Read the photographs' indices, and map the shards where they are to be learnt from.

        Raises:
            ValueError: If they are known to come from an evaluation split.
        """
        super().setup(stage)
        if stage == "fit":
            load_to_learn(self.reader)

    def make_train_pairs(self) -> ShardPairs:
        """Give the pairs of image tokens and one of their captions."""
        return ShardPairs(self.reader)
