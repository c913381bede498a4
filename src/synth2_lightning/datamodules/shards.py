"""Pairs that lie in shards already, for a prediction that adds to what is known of them."""

from collections.abc import Sequence
from typing import Any

from synth2_lightning.datamodules.predict import PredictDataModule
from synth2_lightning.io.fingerprints import fingerprint_texts
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.types import TokenizedImages

_ROWS_AT_A_TIME = 4096


class ShardDataModule(PredictDataModule[int, TokenizedImages]):
    """Pairs of a folder of shards for ``synth2 predict`` to score, each once over all ranks.

    Args:
        shards: Folder that ``synth2 predict`` has finished.
        batch_size: Images per step and rank.

    Raises:
        ValueError: If the batch size is below one.

    Example:
        >>> ShardDataModule("shards/scenes-synthetic", batch_size=256).batch_size
        256
    """

    other_stages = "Train on shards with a SyntheticDataModule."

    def __init__(self, shards: str, batch_size: int = 64) -> None:
        super().__init__(batch_size)
        self.reader = ShardReader(shards)
        self._places: dict[tuple[str, str], int] = {}

    def provenance(self) -> dict[str, Any]:
        """Give what made the images, and whether they are of an evaluation split."""
        manifest = self.reader.manifest
        return {"shards": manifest.provenance.get("settings", {}), "is_evaluation": manifest.is_evaluation}

    def list_items(self) -> range:
        """Check and map the shards, and number their rows."""
        self.reader.load()
        self._places = {}
        return range(len(self.reader))

    def name_items(self, items: Sequence[int]) -> list[tuple[str, str]]:
        """Return source and key of rows."""
        names = self.reader.read_keys()
        return [names[item] for item in items]

    def read(self, items: Sequence[int]) -> TokenizedImages:
        """Read rows."""
        return self.reader.read_whole(items)

    def fingerprint_inputs(self, records: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return fingerprints of the captions and tokens that records are made from."""
        if not self._places:
            self._places = {record: row for row, record in enumerate(self.reader.read_keys())}
        places, sources = self._places, {source for source, _ in self._places}
        found: list[str | None] = ["" if source in sources else None for source, _ in records]
        known = [(number, places[record]) for number, record in enumerate(records) if record in places]
        for start in range(0, len(known), _ROWS_AT_A_TIME):
            numbers, rows = zip(*known[start : start + _ROWS_AT_A_TIME], strict=True)
            images = self.reader.read(rows)
            for number, captions, ids in zip(numbers, images.captions, images.tokens.ids, strict=True):
                found[number] = fingerprint_texts([ids.numpy().tobytes().hex(), *captions])
        return found
