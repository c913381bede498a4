"""The captions of photos as text only: what is synthesized from where the photos themselves are withheld."""

from collections.abc import Iterator

from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.sources.captions import IndexedCaptions
from synth2_lightning.types import CaptionRecord


class PhotoCaptions(IndexedCaptions):
    """Every caption of a source of photos is a record of its own; no image is opened.

    SynthPair of Synth² (arXiv 2403.07750, section 4) is given some photos and the captions of all others: the
    same source with ``limit=1000`` gives the photos, and ``skip=1000`` the captions of the rest. Captions of an
    evaluation split are no less part of it than its photos: nothing may be learned from what is made of them.

    Args:
        photos: Where the captions stand.
        skip: How many photos to leave out, from the first.
        name: What logs and shards call the captions.
        limit: Keep the first captions only, of those that are left.

    Raises:
        ValueError: If ``skip`` is negative.

    Example:
        >>> from synth2_lightning.sources.coco import CocoSource
        >>> PhotoCaptions(CocoSource("captions_train.json", "images"), skip=1000).skip
        1000
    """

    def __init__(
        self, photos: ImageTextSource, skip: int = 0, name: str = "synthetic", limit: int | None = None
    ) -> None:
        super().__init__(name, max_empty_captions=0, limit=limit)
        if skip < 0:
            raise ValueError(f"Captions {name!r} got skip={skip}; expected 0 or more photos to leave out.")
        self.photos = photos
        self.is_evaluation = photos.is_evaluation
        self.skip = skip

    def read_captions(self) -> Iterator[CaptionRecord]:
        """Go through the captions, photo by photo; the key is the photo's and the caption's number."""
        self.photos.load()
        for index in range(self.skip, len(self.photos)):
            for ordinal, caption in enumerate(self.photos.captions(index)):
                yield CaptionRecord(f"{self.photos.key(index)}-{ordinal}", caption)
