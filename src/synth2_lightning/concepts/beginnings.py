"""How the captions of a domain begin: what a language model may go on from, where class names lead it astray."""

from collections import Counter
from collections.abc import Iterator

from synth2_lightning.concepts.listed import ListedConcepts
from synth2_lightning.interfaces import CaptionSource
from synth2_lightning.types import Concept


class CaptionBeginnings(ListedConcepts):
    """The first words of captions, the most frequent first, weighted by the number of captions that begin so.

    For people with few captioned pictures: a caption that goes on from "Two dogs are running" is of their domain, which
    one about any of its nouns need not be. Use them with a template whose only opening is ``{name}``.

    Args:
        captions: Where they are taken from.
        num_words: How many words; captions that have not three words more are left out.
        name: What records and reports call the beginnings.

    Raises:
        ValueError: If ``num_words`` is below one.

    Example:
        >>> from synth2_lightning.sources.caption_table import CaptionTable
        >>> CaptionBeginnings(CaptionTable("captions.csv"), num_words=4).name
        'beginnings'
    """

    def __init__(self, captions: CaptionSource, num_words: int = 4, name: str = "beginnings") -> None:
        super().__init__(name)
        if num_words < 1:
            raise ValueError(f"Concepts {name!r} got num_words={num_words}; expected 1 or more.")
        self.captions = captions
        self.num_words = num_words

    def read_concepts(self, excluded: Counter[str]) -> Iterator[Concept]:
        """Count the beginnings of all captions."""
        self.captions.load()
        counts: Counter[str] = Counter()
        for index in range(len(self.captions)):
            words = self.captions.record(index).caption.split()
            if len(words) < self.num_words + 3:
                excluded["short captions"] += 1
                continue
            beginning = " ".join(words[: self.num_words]).rstrip(" .,;:-")
            counts[beginning[:1].upper() + beginning[1:]] += 1
        for beginning, count in counts.most_common():
            yield Concept(beginning, beginning, weight=float(count))
