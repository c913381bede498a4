"""CIDEr-D: how much a caption says what people say of the same picture, rare words counting more.

R. Vedantam et al., "CIDEr: Consensus-based image description evaluation" (https://arxiv.org/abs/1411.5726), in the
variant CIDEr-D and in the units of pycocoevalcap, where 1.0 is what tables print as 100. A caption is four vectors,
one per length of n-gram, of counts weighted by how few pictures' references hold the n-gram. Its score against a
reference is the cosine of the two, the caption's weights clipped at the reference's, times a Gaussian penalty on the
difference of lengths; the mean over the four lengths and over the references, times ten.

Rarity is a property of the whole corpus, so that the mean of CIDErs of parts is not the CIDEr of the whole:
:class:`Cider` keeps strings, brings those of all ranks together, and scores once. With the document frequencies of
another, larger reference set, single pictures can be scored, too, and their mean is that of the whole.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from synth2_lightning.metrics.corpus import CorpusMetric, check_corpus
from synth2_lightning.metrics.document_frequencies import DocumentFrequencies
from synth2_lightning.metrics.ngrams import MAX_N, Floats, Ints, NGrams, count_ngrams, indices, numbering, split_words

_logger = logging.getLogger(__name__)

_SIGMA = 6.0  # width of the length penalty, in words


@dataclass(frozen=True, slots=True)
class CiderResult:
    """CIDEr-D of a corpus, and of every picture in it; 1.0 is what tables print as 100.

    Example:
        >>> CiderResult(score=0.5, scores={"7": 0.4, "8": 0.6}).score
        0.5
    """

    score: float
    scores: dict[str, float]


def cider(
    hypotheses: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    frequencies: DocumentFrequencies | None = None,
) -> CiderResult:
    """Score captions against what people wrote of the same pictures.

    Args:
        hypotheses: The caption of every picture, by key.
        references: What people wrote, by key; keys that have no hypothesis play no part.
        frequencies: How many pictures of a reference set hold each n-gram, so that few pictures, or a single one, can
            be scored; those of the scored pictures' own references where left out, as benchmarks do it.

    Raises:
        ValueError: If there is no picture, or one of them has no references.

    Example:
        >>> references = {"1": ["a red circle on the left"], "2": ["two blue squares"]}
        >>> round(cider({"1": "A red circle on the left.", "2": "a green dot"}, references).score, 3)
        5.0
    """
    check_corpus("CIDEr", hypotheses, references)
    if len(hypotheses) == 1 and frequencies is None:
        _logger.warning(
            "CIDEr over the single picture %r is always 0: no word is rarer than another. Score at least two pictures, "
            "or give document frequencies.",
            next(iter(hypotheses)),
        )
    scores = _score(list(hypotheses.values()), [references[key] for key in hypotheses], frequencies)
    return CiderResult(float(scores.mean()), dict(zip(hypotheses, scores.tolist(), strict=True)))


def human_cider(references: Mapping[str, Sequence[str]]) -> CiderResult:
    """Score what one person wrote against what the others wrote of the same picture: the human level.

    Leaves one out: reference j of every picture is scored against the remaining ones, for every j, and the scores are
    averaged. A picture with fewer references than others takes part in every round, with the same ones again.

    Args:
        references: At least two captions of every picture, by key.

    Raises:
        ValueError: If there is no picture, or one of them has a single reference.

    Example:
        >>> result = human_cider({"1": ["a red circle", "a red dot"], "2": ["two squares", "two boxes"]})
        >>> 0.0 < result.score < 10.0
        True
    """
    for key, texts in references.items():
        if len(texts) < 2:
            raise ValueError(
                f"Picture {key!r} has {len(texts)} reference(s); expected at least two, one to be scored against the "
                "others. Leave such pictures out."
            )
    rounds = []
    for turn in range(max(map(len, references.values()), default=1)):
        chosen = {key: turn % len(texts) for key, texts in references.items()}
        rest = {key: [*texts[: chosen[key]], *texts[chosen[key] + 1 :]] for key, texts in references.items()}
        rounds.append(cider({key: texts[chosen[key]] for key, texts in references.items()}, rest))
    scores = {key: sum(result.scores[key] for result in rounds) / len(rounds) for key in references}
    return CiderResult(sum(result.score for result in rounds) / len(rounds), scores)


class Cider(CorpusMetric):
    """CIDEr-D over all pictures of all ranks, the same for any number of ranks.

    Keeps the strings themselves, drops repeats of a key (a distributed sampler pads with them), and scores once over
    the corpus in the order of the keys.

    Args:
        frequencies: How many pictures of a reference set hold each n-gram; those of the scored pictures' own
            references where left out.

    Example:
        >>> metric = Cider()
        >>> metric.update(["1", "2"], ["a red circle", "a dot"], [["a red circle"], ["two blue squares"]])
        >>> metric.compute()
        tensor(3.7500)
    """

    def __init__(self, frequencies: DocumentFrequencies | None = None) -> None:
        super().__init__()
        self.frequencies = frequencies

    def compute(self) -> Tensor:
        """Score all pictures of all ranks.

        Raises:
            ValueError: If there is no picture, or if two pictures share a key.
        """
        return torch.tensor(cider(*self.corpus(), self.frequencies).score, device=self.device)


def _score(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], frequencies: DocumentFrequencies | None
) -> Floats:
    """CIDEr-D per picture."""
    number_of = numbering()
    hypothesis = indices(map(number_of.__getitem__, hypotheses))
    reference = indices(map(number_of.__getitem__, chain.from_iterable(references)))
    num_references = indices(map(len, references))
    picture = np.repeat(np.arange(len(references)), num_references)

    vocabulary, words, captions = split_words(number_of)
    lengths = np.bincount(captions, minlength=len(number_of))
    similarity = np.zeros(len(reference))
    for ngrams in count_ngrams(words, captions):
        if frequencies is None:
            num_pictures, held = len(references), ngrams.count_pictures(reference, picture)
        else:
            num_pictures, held = frequencies.num_pictures, frequencies.look_up(ngrams.spell(words, vocabulary))
        # An n-gram that no picture holds counts as if one did.
        rarity = np.log(num_pictures) - np.log(np.maximum(held, 1))
        similarity += _similarity(ngrams, ngrams.counts * rarity[ngrams.ids], hypothesis[picture], reference)
    # As in pycocoevalcap, where the length is the number of bigrams.
    length = np.maximum(lengths - 1, 0)
    difference = length[hypothesis][picture] - length[reference]
    similarity *= np.exp(-(difference**2) / (2 * _SIGMA**2))
    return 10.0 / MAX_N * _sums(picture, similarity, len(references)) / num_references


def _similarity(ngrams: NGrams, weights: Floats, hypothesis: Ints, reference: Ints) -> Floats:
    """Clipped cosine of every hypothesis and its reference; zero where one of them has no weight at all."""
    rows, entries = ngrams.of(hypothesis)
    found, matches = ngrams.find(reference[rows], ngrams.ids[entries])
    clipped = np.minimum(weights[entries[found]], weights[matches]) * weights[matches]
    products = _sums(rows[found], clipped, len(reference))
    norm = np.sqrt(_sums(ngrams.captions, weights**2, int(max(hypothesis.max(), reference.max())) + 1))
    norms = norm[hypothesis] * norm[reference]
    similarity: Floats = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return similarity


def _sums(groups: Ints, values: Floats, num_groups: int) -> Floats:
    # numpy makes integers of no values at all.
    return np.bincount(groups, values, minlength=num_groups).astype(np.float64)
