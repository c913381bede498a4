"""First words of a domain's captions, as prefixes for a language model to continue."""

from collections import Counter
from collections.abc import Iterator

from synth2_lightning.concepts.listed import ListedConcepts
from synth2_lightning.interfaces import CaptionSource
from synth2_lightning.types import Concept


class CaptionBeginnings(ListedConcepts):
    """First words of captions, most frequent first, weighted by the number of captions that start with them.

    Useful for domains with few captioned images: a continuation of "Two dogs are running" stays in the domain, whereas
    a caption about one of its nouns may not. Use them with a template whose only opening is ``{name}``.

    Args:
        captions: Source of the captions; not those of an evaluation split.
        num_words: Number of words; captions with fewer than three further words are excluded.
        name: Name of the concepts in records and reports.

    Raises:
        ValueError: If ``num_words`` is below 1.
    """

    def __init__(self, captions: CaptionSource, num_words: int = 4, name: str = "beginnings") -> None:
        super().__init__(name)
        if num_words < 1:
            raise ValueError(f"Concepts {name!r} got num_words={num_words}; expected 1 or more.")
        self.captions = captions
        self.num_words = num_words

    def read_concepts(self, excluded: Counter[str]) -> Iterator[Concept]:
        """Yield the beginnings of all captions, most frequent first.

        Raises:
            ValueError: If the captions are an evaluation split.
        """
        self.captions.load_for_training()
        counts: Counter[str] = Counter()
        for index in range(len(self.captions)):
            words = self.captions.record(index).caption.split()
            if len(words) < self.num_words + 3:
                excluded["short captions"] += 1
                continue
            beginning = " ".join(words[: self.num_words]).rstrip(" .,;:-")
            if not beginning:
                excluded["beginnings without a word"] += 1
                continue
            counts[beginning[:1].upper() + beginning[1:]] += 1
        for beginning, count in counts.most_common():
            yield Concept(beginning, beginning, weight=float(count))
