"""Datamodule of captions to fine-tune a language model on, some of them held out."""

from collections.abc import Sequence

from torch.utils.data import DataLoader

from synth2_lightning.concepts.mined import find_concepts
from synth2_lightning.concepts.suitability import UNSUITABLE, SuitabilityList
from synth2_lightning.concepts.wordnet import read_wordnet
from synth2_lightning.datamodules.base import ResumableDataModule
from synth2_lightning.datamodules.pairs import BatchDataset, Subset
from synth2_lightning.datamodules.sampling import EvaluationBatchSampler
from synth2_lightning.interfaces import CaptionSource
from synth2_lightning.io.fingerprints import fingerprint_texts, hash_record
from synth2_lightning.types import ConceptCaptionBatch, SampleInfo


class ConceptCaptions(BatchDataset[ConceptCaptionBatch]):
    """Captions with the concepts that they name, which are found when a caption is read.

    Args:
        captions: Loaded source.
        unsuitable: File of excluded concepts in the format of :class:`SuitabilityList`; ``None`` keeps all.
    """

    def __init__(self, captions: CaptionSource, unsuitable: str | None) -> None:
        self.captions = captions
        self._rules = SuitabilityList(unsuitable) if unsuitable else None

    def __len__(self) -> int:
        return len(self.captions)

    def fingerprint(self) -> str:
        """Return a checksum of keys and captions."""
        records = map(self.captions.record, range(len(self)))
        return fingerprint_texts(text for record in records for text in (record.key, record.caption))

    def read(self, indices: Sequence[int]) -> ConceptCaptionBatch:
        """Return a batch of captions."""
        records = [self.captions.record(index) for index in indices]
        wordnet = read_wordnet()
        return ConceptCaptionBatch(
            captions=tuple(record.caption for record in records),
            concepts=tuple(tuple(find_concepts(record.caption, wordnet, self._rules)) for record in records),
            samples=tuple(SampleInfo(record.key, self.captions.name) for record in records),
        )


class LanguageModelingDataModule(ResumableDataModule[ConceptCaptionBatch]):
    """Captions to fine-tune a language model on, with the concepts that they name; a fraction of them is held out.

    Concepts are the nouns of English captions, as in :class:`~synth2_lightning.concepts.mined.MinedConcepts`; captions
    in other languages have those words that are also English nouns. All captions of an image are held out or none.
    Images are held out by the hash of their ids: the same ones in every run, whatever the order of the captions.

    Args:
        captions: Source of the captions; not those of an evaluation split.
        val_fraction: Fraction of the images that is held out, at least one.
        unsuitable: File of excluded concepts in the format of
            :class:`~synth2_lightning.concepts.suitability.SuitabilityList`; ``None`` keeps all.
        batch_size: Captions per step and rank.
        val_batch_size: Captions per batch and rank in validation.
        num_workers: Number of data loader worker processes per rank.
        seed: Seed of the order of the captions.

    Raises:
        ValueError: If the fraction is not above 0 and below 1.

    Example:
        >>> from synth2_lightning.scenes.source import ScenesSource
        >>> from synth2_lightning.sources.photo_captions import PhotoCaptions
        >>> data = LanguageModelingDataModule(PhotoCaptions(ScenesSource("train", 20)), batch_size=4)
        >>> data.setup("fit")
        >>> len(data.train_pairs) + len(data.val_dataloader().dataset) == len(data.captions)
        True
    """

    def __init__(
        self,
        captions: CaptionSource,
        val_fraction: float = 0.1,
        unsuitable: str | None = UNSUITABLE,
        batch_size: int = 32,
        val_batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers, seed)
        if not 0 < val_fraction < 1:
            raise ValueError(
                f"LanguageModelingDataModule got val_fraction={val_fraction}; expected a fraction above 0 and below 1."
            )
        if val_batch_size < 1:
            raise ValueError(f"{type(self).__name__} got val_batch_size={val_batch_size}; expected 1 or more captions.")
        self.captions = captions
        self.val_fraction = val_fraction
        self.unsuitable = unsuitable
        self.val_batch_size = val_batch_size
        self._items: tuple[list[int], list[int]] = ([], [])

    def setup(self, stage: str) -> None:
        """Load the captions and divide them.

        Raises:
            ValueError: If they are an evaluation split, all of one image, or the stage is ``predict``.
        """
        super().setup(stage)
        if stage == "predict":
            raise ValueError(
                "LanguageModelingDataModule has no data for 'predict'; expected `synth2 fit`. To generate captions "
                "with the fine-tuned model, use a ConceptDataModule."
            )
        self.captions.load_for_training()
        self._items = self._divide()

    def make_train_pairs(self) -> BatchDataset[ConceptCaptionBatch]:
        """Return the captions that are not held out."""
        return Subset(ConceptCaptions(self.captions, self.unsuitable), self._items[0])

    def val_dataloader(self) -> DataLoader[ConceptCaptionBatch]:
        """Return the data loader of the held-out captions."""
        held_out = Subset(ConceptCaptions(self.captions, self.unsuitable), self._items[1])
        batches = EvaluationBatchSampler(len(held_out), self.val_batch_size, self.rank, self.world_size)
        return DataLoader(dataset=held_out, sampler=batches, **self.loader_settings())

    def _divide(self) -> tuple[list[int], list[int]]:
        """Return the indices of the training captions and of the held-out ones."""
        records = [self.captions.record(index) for index in range(len(self.captions))]
        images = [record.image_id or record.key for record in records]
        by_hash = sorted(set(images), key=lambda image: hash_record((self.captions.name, image)))
        if len(by_hash) < 2:
            raise ValueError(
                f"The {len(records)} captions of {self.captions.name!r} are of {len(by_hash)} images {by_hash}; "
                "expected two images or more, because one is held out. Give more captions."
            )
        held_out = set(by_hash[: min(len(by_hash) - 1, max(1, round(self.val_fraction * len(by_hash))))])
        sides: tuple[list[int], list[int]] = ([], [])
        for index, image in enumerate(images):
            sides[image in held_out].append(index)
        return sides
