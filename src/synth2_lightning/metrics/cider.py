"""CIDEr-D: consensus of a caption with its references by TF-IDF weighted n-grams.

R. Vedantam et al., "CIDEr: Consensus-based image description evaluation" (https://arxiv.org/abs/1411.5726), in the
variant CIDEr-D and on the scale of pycocoevalcap; papers report it times 100. A caption is represented by one TF-IDF
vector for each n-gram length from 1 to 4. Its score against a reference is the cosine of their vectors, with the
caption's weights clipped at the reference's, times a Gaussian penalty on the difference in length. Scores are averaged
over n-gram lengths and references, and multiplied by 10.

Document frequencies are counted over the whole corpus, so CIDEr is not the mean of the CIDErs of its parts:
:class:`~synth2_lightning.metrics.corpus_metrics.Cider` gathers the captions of all ranks and scores them once. With
document frequencies of a separate reference set, images can be scored one by one, and CIDEr is the mean of their
scores.
"""

import logging
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from synth2_lightning.metrics.corpus import CorpusResult, check_corpus
from synth2_lightning.metrics.document_frequencies import DocumentFrequencies
from synth2_lightning.metrics.ngrams import MAX_N, Floats, Ints, NGrams, count_ngrams, indices, numbering, split_words

_logger = logging.getLogger(__name__)

_SIGMA = 6.0  # of the length penalty, in words


def cider(
    hypotheses: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    frequencies: DocumentFrequencies | None = None,
) -> CorpusResult:
    """Return CIDEr-D of captions against reference captions.

    Args:
        hypotheses: Generated caption by key.
        references: Reference captions by key; keys without a hypothesis are ignored.
        frequencies: Document frequencies of a separate reference set, required for a single image. By default they
            are counted in ``references``, as benchmarks do.

    Raises:
        ValueError: If there is no image, or an image has no references.

    Example:
        >>> references = {"1": ["a red circle on the left"], "2": ["two blue squares"]}
        >>> round(cider({"1": "A red circle on the left.", "2": "a green dot"}, references).score, 3)
        5.0
    """
    check_corpus("CIDEr", hypotheses, references)
    if len(hypotheses) == 1 and frequencies is None:
        _logger.warning(
            "CIDEr over the single image %r is always 0: all inverse document frequencies are 0. Score at least two "
            "images, or pass document frequencies.",
            next(iter(hypotheses)),
        )
    scores = _score_images(list(hypotheses.values()), [references[key] for key in hypotheses], frequencies)
    return CorpusResult(float(scores.mean()), dict(zip(hypotheses, scores.tolist(), strict=True)))


def human_cider(references: Mapping[str, Sequence[str]]) -> CorpusResult:
    """Return the human level: the leave-one-out CIDEr-D of each reference against the other ones of its image.

    In round j, reference j of each image is scored against the remaining ones; the scores of all rounds are averaged.
    Images with fewer references repeat theirs.

    Args:
        references: At least two reference captions of each image, by key.

    Raises:
        ValueError: If there is no image, or an image has a single reference.

    Example:
        >>> result = human_cider({"1": ["a red circle", "a red dot"], "2": ["two squares", "two boxes"]})
        >>> 0.0 < result.score < 10.0
        True
    """
    for key, texts in references.items():
        if len(texts) < 2:
            raise ValueError(
                f"Image {key!r} has {len(texts)} reference(s); expected at least two, one to score and one to score "
                "against. Remove such images."
            )
    rounds = []
    for turn in range(max(map(len, references.values()), default=1)):
        chosen = {key: turn % len(texts) for key, texts in references.items()}
        rest = {key: [*texts[: chosen[key]], *texts[chosen[key] + 1 :]] for key, texts in references.items()}
        rounds.append(cider({key: texts[chosen[key]] for key, texts in references.items()}, rest))
    scores = {key: sum(result.scores[key] for result in rounds) / len(rounds) for key in references}
    return CorpusResult(sum(result.score for result in rounds) / len(rounds), scores)


def _score_images(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], frequencies: DocumentFrequencies | None
) -> Floats:
    """Return CIDEr-D of each image."""
    number_of = numbering()
    hypothesis = indices(map(number_of.__getitem__, hypotheses))
    reference = indices(map(number_of.__getitem__, chain.from_iterable(references)))
    num_references = indices(map(len, references))
    image = np.repeat(np.arange(len(references)), num_references)

    vocabulary, words, captions = split_words(number_of)
    lengths = np.bincount(captions, minlength=len(number_of))
    similarity = np.zeros(len(reference))
    for ngrams in count_ngrams(words, captions):
        if frequencies is None:
            num_images, counts = len(references), ngrams.count_images(reference, image)
        else:
            num_images, counts = frequencies.num_images, frequencies.look_up(ngrams.to_strings(words, vocabulary))
        idf = np.log(num_images) - np.log(np.maximum(counts, 1))
        similarity += _similarity(ngrams, ngrams.counts * idf[ngrams.ids], hypothesis[image], reference)
    difference = lengths[hypothesis][image] - lengths[reference]
    similarity *= np.exp(-(difference**2) / (2 * _SIGMA**2))
    return 10.0 / MAX_N * _sums(image, similarity, len(references)) / num_references


def _similarity(ngrams: NGrams, weights: Floats, hypothesis: Ints, reference: Ints) -> Floats:
    """Return the clipped cosine of each hypothesis and its reference; 0 where a norm is 0."""
    rows, entries = ngrams.select(hypothesis)
    found, matches = ngrams.find(reference[rows], ngrams.ids[entries])
    clipped = np.minimum(weights[entries[found]], weights[matches]) * weights[matches]
    products = _sums(rows[found], clipped, len(reference))
    norm = np.sqrt(_sums(ngrams.captions, weights**2, int(max(hypothesis.max(), reference.max())) + 1))
    norms = norm[hypothesis] * norm[reference]
    similarity: Floats = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return similarity


def _sums(groups: Ints, values: Floats, num_groups: int) -> Floats:
    # bincount returns integers if there are no values.
    return np.bincount(groups, values, minlength=num_groups).astype(np.float64)
