"""Pairs that lie in shards already, for a prediction that adds to what is known of them."""

from collections.abc import Container, Iterator, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule

from synth2_lightning.datamodules.sampling import PredictionSampler
from synth2_lightning.fingerprints import fingerprint_texts
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.types import TokenizedImages

_ROWS_AT_A_TIME = 4096


class ShardBatches:
    """The batches of one rank, to be gone through once, with all that the shards know of each picture.

    No ``DataLoader``: rows are mapped into memory, which leaves a worker nothing to do.

    Args:
        reader: Loaded.
        rows: Numbers of the rows that all ranks share.
        sampler: Deals them out.
    """

    def __init__(self, reader: ShardReader, rows: Sequence[int], sampler: PredictionSampler) -> None:
        self.reader = reader
        self.rows = rows
        self._sampler = sampler

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._sampler)

    def __iter__(self) -> Iterator[TokenizedImages]:
        """Give the batches."""
        for positions in self._sampler:
            yield self.reader.read_whole([self.rows[position] for position in positions])


class ShardDataModule(LightningDataModule):
    """Pairs of a folder of shards for ``synth2 predict`` to score, each once over all ranks.

    Args:
        shards: Folder that ``synth2 predict`` has finished.
        batch_size: Pictures per step and rank.

    Raises:
        ValueError: If the batch size is below one.

    Example:
        >>> ShardDataModule("shards/scenes-synthetic", batch_size=256).batch_size
        256
    """

    def __init__(self, shards: str, batch_size: int = 64) -> None:
        super().__init__()
        # More ranks than pictures: those without one have nothing to do, and that is no error.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        if batch_size < 1:
            raise ValueError(f"ShardDataModule got batch_size={batch_size}; expected 1 or more pictures.")
        self.reader = ShardReader(shards)
        self.batch_size = batch_size
        self._rows: Sequence[int] = ()
        self._places: dict[tuple[str, str], int] = {}

    def provenance(self) -> dict[str, Any]:
        """Give what made the pictures, and whether they are of an evaluation split."""
        manifest = self.reader.manifest
        return {"shards": manifest.provenance.get("settings", {}), "is_evaluation": manifest.is_evaluation}

    def setup(self, stage: str) -> None:
        """Check and map the shards.

        Raises:
            ValueError: If the run is no prediction.
        """
        if stage != "predict":
            raise ValueError(
                f"ShardDataModule has nothing for {stage!r}: it is read by `synth2 predict`. Learn from shards with a "
                "SyntheticDataModule."
            )
        self.reader.load()
        self._places = {}
        self._rows = range(len(self.reader))

    def leave_out(self, records: Container[tuple[str, str]]) -> None:
        """Leave pictures, named by source and key, out of the prediction that was set up."""
        self._rows = [row for row, record in enumerate(self.reader.read_keys()) if record not in records]

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

    def predict_dataloader(self) -> ShardBatches:
        """Give this rank's pictures."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return ShardBatches(
            self.reader, self._rows, PredictionSampler(len(self._rows), self.batch_size, rank, world_size)
        )
