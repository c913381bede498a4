"""Check of batches that must contain photos."""

from synth2_lightning.types import ImageTextBatch, Pixels


def get_pixels(batch: ImageTextBatch, name: str) -> Pixels:
    """Return the photos of a batch; the name is that of the module.

    Raises:
        TypeError: If the batch contains image tokens.
    """
    if not isinstance(batch.image, Pixels):
        raise TypeError(
            f"{name} got {type(batch.image).__name__}; expected Pixels, because only photos can be tokenized. Use "
            "datamodules.real.RealDataModule."
        )
    return batch.image
