"""Sources of images, captions and concepts, samplers, and caption filters."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synth2_lightning.interfaces.loading import Loadable
from synth2_lightning.types import CaptionRecord, Concept, Verdict


@runtime_checkable
class HasProvenance(Protocol):
    """Module or datamodule whose settings determine the records that a prediction writes."""

    def provenance(self) -> dict[str, Any]:
        """Return those settings as JSON values, before the first record is written.

        A datamodule includes ``is_evaluation``: whether its input is known to be an evaluation split.
        """


@runtime_checkable
class Skippable(Protocol):
    """Datamodule that can resume an interrupted prediction."""

    def skip(self, records: Container[tuple[str, str]]) -> None:
        """Exclude records, given as (source, key), from the prediction.

        Call it after ``setup("predict")``, with the same records on every rank: the ranks divide the remaining ones.
        """


@runtime_checkable
class HasInputs(Protocol):
    """Datamodule whose inputs could change before a prediction resumes."""

    def fingerprint_inputs(self, records: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return a fingerprint of the input of each record, given as (source, key); call after ``setup("predict")``.

        ``None`` for records of another source, empty for records that the source no longer has.
        """


@runtime_checkable
class HasTrainingCaptions(Protocol):
    """Datamodule whose training captions a module reads before the first step, as for document frequencies."""

    def training_captions(self) -> list[tuple[str, ...]]:
        """Return all captions of each training image, real and synthetic; after ``setup("fit")``."""


class CaptionSource(Loadable, ABC):
    """Captions to synthesize images from. ``load()`` reads them.

    Attributes:
        name: Name in logs and shards; the loss is logged per name.
        is_evaluation: Whether the captions are known to be an evaluation split, which must not be trained on.
    """

    name: str
    is_evaluation: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """Number of captions."""

    @abstractmethod
    def record(self, index: int) -> CaptionRecord:
        """Return a caption that is not empty, with a unique key."""

    def load_for_training(self) -> None:
        """Load captions that a language model is trained or prompted with.

        Raises:
            ValueError: If they are an evaluation split.
        """
        if self.is_evaluation:
            raise ValueError(
                f"The captions, {self.name!r}, are an evaluation split, so that scores on it would be invalid. "
                "Expected captions of a training split."
            )
        self.load()


class ConceptSource(Loadable, ABC):
    """Concepts to generate captions for. ``load()`` reads them.

    Attributes:
        name: Name in records and reports.
    """

    name: str

    @abstractmethod
    def __len__(self) -> int:
        """Number of concepts."""

    @abstractmethod
    def concept(self, index: int) -> Concept:
        """Return a concept with a unique key."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Return the settings of the list and a fingerprint of its content, as JSON values; call after ``load()``."""


class ConceptSampler(ABC):
    """Samples the concepts to generate captions for."""

    @abstractmethod
    def sample(self, concepts: Sequence[Concept], count: int, seed: int) -> list[int]:
        """Return the index of a concept for each caption; a function of the arguments alone.

        Smaller counts return a prefix of larger ones, so that captions can be added to a set later.
        """

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Return every argument as JSON values."""


Judge = Callable[[Sequence[CaptionRecord]], list[Verdict]]
"""Returns a verdict on each of the next captions of a set, in their order."""


class CaptionFilter(ABC):
    """Rejects or cleans captions."""

    @abstractmethod
    def start(self) -> Judge:
        """Return a function that judges one set, block by block.

        The division into blocks must not change verdicts: a filter that compares captions keeps the state in the
        returned function. :class:`~synth2_lightning.filters.answers.AnswerFilter` is the only exception.
        """

    def judge(self, records: Sequence[CaptionRecord]) -> list[Verdict]:
        """Return a verdict on every caption of a set; deterministic for the same records in the same order."""
        return self.start()(records)

    def provenance(self) -> dict[str, Any]:
        """Return every argument as JSON values.

        Frozen dataclasses inherit it; other subclasses must override it.
        """
        return asdict(cast(Any, self))


class ImageTextSource(Loadable, ABC):
    """Photos with captions. ``load()`` reads the index, not the images.

    Attributes:
        name: Short name for logs, such as ``"coco"``; the loss is logged per name.
        is_evaluation: Whether it is known to be an evaluation split, which must not be trained on.
    """

    name: str
    is_evaluation: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def key(self, index: int) -> str:
        """Id of an image in scores, shards and predictions, the same in every run."""

    @abstractmethod
    def captions(self, index: int) -> tuple[str, ...]:
        """Captions of an image, or the accepted answers to its prompt; at least one, none of them empty."""

    def count_captions(self) -> NDArray[np.int64]:
        """Number of captions of each image; override it if they are known without making the captions."""
        return np.array([len(self.captions(index)) for index in range(len(self))], dtype=np.int64)

    def prompt(self, index: int) -> str | None:
        """Prompt of an image, such as a question; ``None`` for every image of a captioning set.

        An image with several prompts is as many items, each with its own key.
        """
        return None

    def image_fingerprint(self, index: int) -> str:
        """Fingerprint of the version of an image, without decoding it; empty if there is none."""
        return ""

    def fingerprint(self) -> str:
        """Checksum of keys, captions and prompts, in order; call after ``load()``."""
        digest = hashlib.blake2b(digest_size=8)
        for index in range(len(self)):
            digest.update(repr((self.key(index), self.captions(index), self.prompt(index))).encode())
        return digest.hexdigest()

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """Read an image.

        Raises:
            OSError: If the image is missing or damaged; the message contains its name.
        """
