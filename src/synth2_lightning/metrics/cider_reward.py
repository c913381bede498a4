"""CIDEr-D of single captions as a reward for training."""

from collections.abc import Iterable, Sequence

import numpy as np

from synth2_lightning.metrics.cider import cider
from synth2_lightning.metrics.document_frequencies import count_document_frequencies
from synth2_lightning.metrics.ngrams import Floats

_END = "endoftext"  # letters only, so that its neighbors do not change how it is tokenized


class CiderReward:
    """CIDEr-D of captions against the references of their images, with document frequencies of the training captions.

    The end of a caption counts as a word, in captions, references and document frequencies. Without it "a dog on a" is
    rewarded for the n-grams "on a" and "a", and captioners learn to end so (Y. Hu et al. 2023, arXiv 2305.12254, where
    this is the "Standard" configuration). A caption that was cut at the maximum length has no end, so that all n-grams
    with it are missing.

    Scores exceed those of validation for two reasons, the end and other document frequencies; compare them with each
    other only.

    Args:
        training_captions: All captions of each training image, whose document frequencies are counted.

    Raises:
        ValueError: If there is no image.

    Example:
        >>> reward = CiderReward([["a red circle on the left"], ["two blue squares"], ["a red square"]])
        >>> reward(["a red circle", "a red circle"], [True, False], [("a red circle",)] * 2).round(1).tolist()
        [10.0, 6.0]
    """

    def __init__(self, training_captions: Iterable[Sequence[str]]) -> None:
        images = ((str(number), list(map(_add_end, texts))) for number, texts in enumerate(training_captions))
        self._frequencies = count_document_frequencies(dict(images))

    def __call__(
        self, captions: Sequence[str], is_complete: Sequence[bool], references: Sequence[tuple[str, ...]]
    ) -> Floats:
        """Return the score of each caption, from 0 to 10.

        Args:
            captions: Captions; an empty one has the score of its end.
            is_complete: Whether each caption ended before the maximum length.
            references: All references of the image of each caption.

        Raises:
            ValueError: If there is no caption, or an image has no references.
        """
        hypotheses = [_add_end(text) if ended else text for text, ended in zip(captions, is_complete, strict=True)]
        with_end = {texts: tuple(map(_add_end, texts)) for texts in set(references)}
        result = cider(
            {str(row): text for row, text in enumerate(hypotheses)},
            {str(row): with_end[texts] for row, texts in enumerate(references)},
            self._frequencies,
        )
        return np.fromiter(result.scores.values(), np.float64)


def _add_end(caption: str) -> str:
    return f"{caption} {_END}"
