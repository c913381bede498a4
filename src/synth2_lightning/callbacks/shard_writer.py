"""Writing of token shards."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule

from synth2_lightning.callbacks.part_writer import PartWriterCallback
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.types import TokenizedImages


class ShardWriterCallback(PartWriterCallback):
    """Writes the :class:`TokenizedImages` of every ``predict_step`` to a folder of shards, rank by rank.

    :class:`PartWriterCallback` describes how a run resumes.

    Args:
        folder: Folder of the shards.
        records_per_part: Images per file; a kill loses at most these, on each rank.

    Example:
        >>> ShardWriterCallback("shards/coco").folder
        'shards/coco'
    """

    noun = "images"

    def __init__(self, folder: str, records_per_part: int = 10_000) -> None:
        super().__init__(folder, records_per_part)

    def make_writer(self, folder: Path, rank: int) -> ShardWriter:
        """Return the writer of a rank."""
        return ShardWriter(folder, rank, self.records_per_part)

    def append(self, writer: ShardWriter, outputs: Any, pl_module: LightningModule) -> int:
        """Write the images of a step."""
        if not isinstance(outputs, TokenizedImages):
            raise TypeError(
                f"ShardWriterCallback got {type(outputs).__name__} from {type(pl_module).__name__}.predict_step; "
                "expected TokenizedImages. Use a module that makes shards, such as SynthesisModule or ScoringModule."
            )
        return writer.append(outputs)

    def finish(self, folder: Path, provenance: dict[str, Any], settings: dict[str, Any]) -> str:
        """Write the manifest."""
        is_evaluation = settings.get("data", {}).get("is_evaluation", False)
        return f"{finish(folder, provenance, is_evaluation).num_records} images are in {self.folder}"
