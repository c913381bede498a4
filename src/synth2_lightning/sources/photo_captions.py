"""Captions of an image source as a caption source, to synthesize images from them."""

from collections.abc import Iterator

from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.sources.captions import IndexedCaptions
from synth2_lightning.types import CaptionRecord


class PhotoCaptions(IndexedCaptions):
    """Caption source with one record per caption of an image source; no image is opened.

    SynthPair of Synth² (arXiv 2403.07750) trains on some photos and on the captions of all others: the same
    source with ``limit=1000`` provides the photos, and with ``skip=1000`` the captions of the others. Captions of an
    evaluation split belong to it: images made from them must not be trained on.

    Args:
        photos: Image source of the captions.
        skip: Number of photos to skip, from the first.
        name: Name of the source in logs and shards.
        limit: Maximum number of captions after the skipped photos; ``None`` keeps all.

    Raises:
        ValueError: If ``skip`` is negative.
    """

    def __init__(
        self, photos: ImageTextSource, skip: int = 0, name: str = "synthetic", limit: int | None = None
    ) -> None:
        super().__init__(name, max_empty_captions=0, limit=limit)
        if skip < 0:
            raise ValueError(f"Captions {name!r} got skip={skip}; expected 0 or more photos to skip.")
        self.photos = photos
        self.is_evaluation = photos.is_evaluation
        self.skip = skip

    def read_captions(self) -> Iterator[CaptionRecord]:
        """Yield the captions photo by photo; the key of each is the photo's, its image id, and the caption's number."""
        self.photos.load()
        for index in range(self.skip, len(self.photos)):
            photo = self.photos.key(index)
            for ordinal, caption in enumerate(self.photos.captions(index)):
                yield CaptionRecord(f"{photo}-{ordinal}", caption, image_id=photo)
