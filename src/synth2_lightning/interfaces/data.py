"""Sources of images, captions and concepts, samplers, and caption filters."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict
from typing import Any, Protocol, cast, runtime_checkable

from PIL import Image

from synth2_lightning.interfaces.loading import Loadable
from synth2_lightning.types import (
    CaptionRecord,
    Concept,
    Verdict,
)


@runtime_checkable
class HasProvenance(Protocol):
    """What a module or a datamodule offers where its settings decide the records that a prediction writes."""

    def provenance(self) -> dict[str, Any]:
        """Give those settings, in plain values that JSON can hold; known when the prediction starts.

        A datamodule says by ``is_evaluation`` among them whether what it reads is known to be an evaluation split.
        """


@runtime_checkable
class Skippable(Protocol):
    """What a datamodule offers that can go on where an earlier prediction stopped."""

    def skip(self, records: Container[tuple[str, str]]) -> None:
        """Leave records, named by source and key, out of the prediction that was set up.

        To be called after ``setup("predict")``, with the same records on every rank: the ranks deal the rest out.
        """


@runtime_checkable
class HasInputs(Protocol):
    """What a datamodule offers whose records are made from inputs that could change between stop and resume."""

    def fingerprint_inputs(self, records: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return a fingerprint of what each record, named by source and key, is made from; after ``setup("predict")``.

        It is ``None`` for records of another source, and empty for those that the source no longer has.
        """


class CaptionSource(Loadable, ABC):
    """A set of captions to synthesize from. Constructing it is cheap; ``load()`` reads the captions.

    Attributes:
        name: What logs and shards call it; the loss on its pairs is logged per name.
        is_evaluation: Whether they are known to be those of a split that scores are measured on: nothing may be learned
            from images that are made of them.
    """

    name: str
    is_evaluation: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """Number of captions."""

    @abstractmethod
    def record(self, index: int) -> CaptionRecord:
        """Give a caption, never an empty one, under a key that no other has."""


class ConceptSource(Loadable, ABC):
    """A list of things that captions may be asked for. Constructing it is cheap; ``load()`` reads the list.

    Attributes:
        name: What records and reports call it.
    """

    name: str

    @abstractmethod
    def __len__(self) -> int:
        """Number of concepts."""

    @abstractmethod
    def concept(self, index: int) -> Concept:
        """Give a concept, under a key that no other has."""

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Give what decides the list, known after ``load()``; among it a fingerprint of what it holds."""


class ConceptSampler(ABC):
    """Says which concepts captions are asked for, and how often each."""

    @abstractmethod
    def sample(self, concepts: Sequence[Concept], count: int, seed: int) -> list[int]:
        """Give indices of concepts, one per caption: a function of these three.

        The first ``n`` of a longer draw are the draw of ``n``, so that a set may be given more captions later.
        """

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Give every argument, in plain values that JSON can hold."""


Judge = Callable[[Sequence[CaptionRecord]], list[Verdict]]
"""Returns a verdict on each of the next captions of a set, in their order."""


class CaptionFilter(ABC):
    """Says which captions may stay, and cleans them."""

    @abstractmethod
    def start(self) -> Judge:
        """Return a function that judges one set, block by block.

        How a set is divided into blocks changes no verdict: a filter that compares captions keeps what it needs of the
        earlier ones in the function.
        """

    def judge(self, records: Sequence[CaptionRecord]) -> list[Verdict]:
        """Return a verdict on every caption of a set; the same records in the same order get the same verdicts."""
        return self.start()(records)

    def provenance(self) -> dict[str, Any]:
        """Return every argument as JSON values.

        Frozen dataclasses inherit it; other subclasses must override it.
        """
        return asdict(cast(Any, self))


class ImageTextSource(Loadable, ABC):
    """A set of photos with captions, read where it lies. Constructing it is cheap; ``load()`` reads the index.

    Attributes:
        name: Short name for logs, such as ``"coco"``; the loss is logged per name.
        is_evaluation: Whether it is known to be a split that scores are measured on: nothing may be learned from it.
    """

    name: str
    is_evaluation: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def key(self, index: int) -> str:
        """The image's id, the same in every run: scores, shards and predictions name it so."""

    @abstractmethod
    def captions(self, index: int) -> tuple[str, ...]:
        """Captions of an image; at least one, none of them empty. Where something is asked, the accepted answers."""

    def prompt(self, index: int) -> str | None:
        """What is asked about an image, such as a question; ``None``, for every image, where captions say it all.

        An image of which several things are asked is as many items, each with a key of its own.
        """
        return None

    def image_fingerprint(self, index: int) -> str:
        """Return what tells an image from another version of it without decoding it; empty where nothing does."""
        return ""

    def fingerprint(self) -> str:
        """Checksum of keys, captions and prompts, in their order; after ``load()``."""
        digest = hashlib.blake2b(digest_size=8)
        for index in range(len(self)):
            digest.update(repr((self.key(index), self.captions(index), self.prompt(index))).encode())
        return digest.hexdigest()

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """Read an image.

        Raises:
            OSError: If it is missing or damaged, with its name in the message.
        """
