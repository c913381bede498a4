"""Datamodule of the pairs of a shard folder, to predict scores for them."""

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
        shards: Finished shard folder of ``synth2 predict``.
        batch_size: Images per step and rank.

    Raises:
        ValueError: If the batch size is below 1.
    """

    other_stages = "Train on shards with a SyntheticDataModule."

    def __init__(self, shards: str, batch_size: int = 64) -> None:
        super().__init__(batch_size)
        self.reader = ShardReader(shards)
        self._rows: dict[tuple[str, str], int] = {}

    def provenance(self) -> dict[str, Any]:
        """Return the settings of the shards, and whether they come from an evaluation split."""
        manifest = self.reader.manifest
        return {"shards": manifest.provenance.get("settings", {}), "is_evaluation": manifest.is_evaluation}

    def list_items(self) -> range:
        """Check and memory-map the shards and return the numbers of their rows."""
        self.reader.load()
        self._rows = {}
        return range(len(self.reader))

    def name_items(self, items: Sequence[int]) -> list[tuple[str, str]]:
        """Return source and key of each row."""
        names = self.reader.read_keys()
        return [names[item] for item in items]

    def read(self, items: Sequence[int]) -> TokenizedImages:
        """Return a batch of rows."""
        return self.reader.read_all_columns(items)

    def fingerprint_inputs(self, records: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return fingerprints of the captions and tokens of records."""
        if not self._rows:
            self._rows = {record: row for row, record in enumerate(self.reader.read_keys())}
        sources = {source for source, _ in self._rows}
        fingerprints: list[str | None] = ["" if source in sources else None for source, _ in records]
        known = [(number, self._rows[record]) for number, record in enumerate(records) if record in self._rows]
        for start in range(0, len(known), _ROWS_AT_A_TIME):
            numbers, rows = zip(*known[start : start + _ROWS_AT_A_TIME], strict=True)
            images = self.reader.read(rows)
            for number, captions, ids in zip(numbers, images.captions, images.tokens.ids, strict=True):
                fingerprints[number] = fingerprint_texts([ids.numpy().tobytes().hex(), *captions])
        return fingerprints
