"""The captions of photographs as text only: what is synthesised from where the photographs themselves are withheld."""

from collections.abc import Iterator

from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.sources.captions import IndexedCaptions
from synth2_lightning.types import CaptionRecord


class PhotographCaptions(IndexedCaptions):
    """Every caption of a source of photographs is a record of its own; no picture is opened.

    SynthPair of Synth² (arXiv 2403.07750, section 4) is given some photographs and the captions of all others: the
    same source with ``limit=1000`` gives the photographs, and ``skip=1000`` the captions of the rest. Captions of an
    evaluation split are no less part of it than its photographs: nothing may be learnt from what is made of them.

    Args:
        photographs: Where the captions stand.
        skip: How many photographs to leave out, from the first.
        name: What logs and shards call the captions.
        limit: Keep the first captions only, of those that are left.

    Raises:
        ValueError: If ``skip`` is negative.

    Example:
        >>> from synth2_lightning.sources.coco import CocoSource
        >>> PhotographCaptions(CocoSource("captions_train.json", "images"), skip=1000).skip
        1000
    """

    def __init__(
        self, photographs: ImageTextSource, skip: int = 0, name: str = "synthetic", limit: int | None = None
    ) -> None:
        super().__init__(name, max_empty_captions=0, limit=limit)
        if skip < 0:
            raise ValueError(f"Captions {name!r} got skip={skip}; expected 0 or more photographs to leave out.")
        self.photographs = photographs
        self.is_evaluation = photographs.is_evaluation
        self.skip = skip

    def read_captions(self) -> Iterator[CaptionRecord]:
        """Go through the captions, photograph by photograph; the key is the photograph's and the caption's number."""
        self.photographs.load()
        for index in range(self.skip, len(self.photographs)):
            for ordinal, caption in enumerate(self.photographs.captions(index)):
                yield CaptionRecord(f"{self.photographs.key(index)}-{ordinal}", caption)
