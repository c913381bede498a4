"""CIDEr-D: how much a caption says what people say of the same picture, rare words counting more.

R. Vedantam et al., "CIDEr: Consensus-based image description evaluation" (https://arxiv.org/abs/1411.5726), in the
variant CIDEr-D and in the units of pycocoevalcap, where 1.0 is what tables print as 100. A caption is four vectors,
one per length of n-gram, of counts weighted by how few pictures' references hold the n-gram. Its score against a
reference is the cosine of the two, the caption's weights clipped at the reference's, times a Gaussian penalty on the
difference of lengths; the mean over the four lengths and over the references, times ten.

Rarity is a property of the whole corpus, so that the mean of CIDErs of parts is not the CIDEr of the whole:
:class:`Cider` keeps strings, brings those of all ranks together, and scores once.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import Metric

from synth2_lightning.metrics.ptb import tokenize

_logger = logging.getLogger(__name__)

_MAX_N = 4  # words in the longest n-gram
_SIGMA = 6.0  # width of the length penalty, in words

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CiderResult:
    """CIDEr-D of a corpus, and of every picture in it; 1.0 is what tables print as 100.

    Example:
        >>> CiderResult(score=0.5, scores={"7": 0.4, "8": 0.6}).score
        0.5
    """

    score: float
    scores: dict[str, float]


def cider(hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> CiderResult:
    """Score captions against what people wrote of the same pictures.

    Args:
        hypotheses: The caption of every picture, by key.
        references: What people wrote, by key; keys that have no hypothesis play no part.

    Raises:
        ValueError: If there is no picture, or one of them has no references.

    Example:
        >>> references = {"1": ["a red circle on the left"], "2": ["two blue squares"]}
        >>> round(cider({"1": "A red circle on the left.", "2": "a green dot"}, references).score, 3)
        5.0
    """
    if not hypotheses:
        raise ValueError("CIDEr was asked for over no picture at all; expected at least two captions with references.")
    for key in hypotheses:
        _check_references(key, references.get(key, ()))
    if len(hypotheses) == 1:
        _logger.warning(
            "CIDEr over the single picture %r is always 0: no word is rarer than another. Score at least two pictures.",
            next(iter(hypotheses)),
        )
    scores = _score(list(hypotheses.values()), [references[key] for key in hypotheses])
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


class Cider(Metric):
    """CIDEr-D over all pictures of all ranks, the same for any number of ranks.

    Keeps the strings themselves, drops repeats of a key (a distributed sampler pads with them), and scores once over
    the corpus in the order of the keys.

    Example:
        >>> metric = Cider()
        >>> metric.update(["1", "2"], ["a red circle", "a dot"], [["a red circle"], ["two blue squares"]])
        >>> metric.compute()
        tensor(3.7500)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    rows: list[tuple[str, str, tuple[str, ...]]]

    def __init__(self) -> None:
        """Start with no picture."""
        super().__init__()
        self.add_state("rows", default=[], dist_reduce_fx=None)

    def update(self, keys: Sequence[str], hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Add pictures.

        Args:
            keys: One id per picture, the same in every epoch and on every rank.
            hypotheses: One caption per picture.
            references: What people wrote, per picture; at least one each.

        Raises:
            ValueError: If the three have different lengths, or a picture has no references.
        """
        if not len(keys) == len(hypotheses) == len(references):
            raise ValueError(
                f"Cider was given {len(keys)} keys, {len(hypotheses)} hypotheses and references of {len(references)} "
                "pictures; expected one of each per picture."
            )
        for key, hypothesis, texts in zip(keys, hypotheses, references, strict=True):
            _check_references(key, texts)
            self.rows.append((key, hypothesis, tuple(texts)))

    def compute(self) -> Tensor:
        """Score all pictures of all ranks.

        Raises:
            ValueError: If there is no picture, or if two pictures share a key.
        """
        return torch.tensor(cider(*self.corpus()).score, device=self.device)

    def corpus(self) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
        """Hypotheses and references by key, repeats dropped; of all ranks inside ``sync_context()``.

        Raises:
            ValueError: If two pictures share a key.
        """
        unique: dict[str, tuple[str, tuple[str, ...]]] = {}
        for key, hypothesis, texts in self.rows:
            _, known = unique.setdefault(key, (hypothesis, texts))
            if known != texts:
                raise ValueError(
                    f"Two pictures share the key {key!r}: their references differ ({known[0]!r}, {texts[0]!r}), and "
                    "one of them would be lost. Give every picture a key of its own."
                )
        # Sums of floats depend on their order: by key, no number of ranks changes a bit of the score.
        keys = sorted(unique)
        return {key: unique[key][0] for key in keys}, {key: unique[key][1] for key in keys}

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any | None = None) -> None:
        # torchmetrics gathers tensors; these are strings, and ranks hold different numbers of them.
        group = process_group or self.process_group
        gathered: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(gathered, self.rows, group=group)
        self.rows = list(chain.from_iterable(gathered))

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = ()) -> nn.Module:
        # Strings live on no device.
        return super()._apply(fn, exclude_state=(*exclude_state, "rows"))


def _check_references(key: str, texts: Sequence[str]) -> None:
    if isinstance(texts, str) or not texts:
        raise ValueError(
            f"Picture {key!r} has the references {texts!r}; expected a sequence of at least one caption to be scored "
            "against."
        )


@dataclass(frozen=True, slots=True)
class _NGrams:
    """How often each caption holds each n-gram of one length: a sparse matrix, sorted by caption, then by n-gram."""

    captions: _Ints
    ids: _Ints
    counts: _Ints
    num_ids: int

    def of(self, captions: _Ints) -> tuple[_Ints, _Ints]:
        """Entries of the listed captions, as positions in the list and positions in the matrix."""
        starts = np.searchsorted(self.captions, captions, side="left")
        lengths = np.searchsorted(self.captions, captions, side="right") - starts
        rows = np.repeat(np.arange(len(captions)), lengths)
        entries = np.arange(len(rows)) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        return rows, entries

    def find(self, captions: _Ints, ids: _Ints) -> tuple[npt.NDArray[np.bool_], _Ints]:
        """Whether these captions hold these n-grams, and the entries of those that do."""
        matrix = self.captions * self.num_ids + self.ids
        wanted = captions * self.num_ids + ids
        entries = np.minimum(np.searchsorted(matrix, wanted), max(len(matrix) - 1, 0))
        found = matrix[entries] == wanted
        return found, entries[found]


def _score(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> _Floats:
    """CIDEr-D per picture."""
    number_of = _numbering()
    hypothesis = _indices(map(number_of.__getitem__, hypotheses))
    reference = _indices(map(number_of.__getitem__, chain.from_iterable(references)))
    num_references = _indices(map(len, references))
    picture = np.repeat(np.arange(len(references)), num_references)

    words, captions = _words(number_of)
    lengths = np.bincount(captions, minlength=len(number_of))
    similarity = np.zeros(len(reference))
    for ngrams in _ngrams(words, captions):
        weights = ngrams.counts * _rarity(ngrams, reference, picture)[ngrams.ids]
        similarity += _similarity(ngrams, weights, hypothesis[picture], reference)
    # As in pycocoevalcap, where the length is the number of bigrams.
    length = np.maximum(lengths - 1, 0)
    difference = length[hypothesis][picture] - length[reference]
    similarity *= np.exp(-(difference**2) / (2 * _SIGMA**2))
    return 10.0 / _MAX_N * _sums(picture, similarity, len(references)) / num_references


def _words(texts: Iterable[str]) -> tuple[_Ints, _Ints]:
    """All words of all captions, numbered, and the caption that each belongs to."""
    number_of = _numbering()
    end = number_of["\0"]  # the tokeniser lets no such word through
    words = _indices(map(number_of.__getitem__, " \0 ".join(map(tokenize, texts)).split()))
    captions = np.cumsum(words == end)
    return words[words != end], captions[words != end]


def _ngrams(words: _Ints, captions: _Ints) -> Iterator[_NGrams]:
    """Count the n-grams of every caption, for each length from one to four."""
    ids, base = words.copy(), int(words.max(initial=0)) + 1
    starts = np.arange(len(words))
    num_ids = base
    for n in range(1, _MAX_N + 1):
        if n > 1:
            # An n-gram is the (n-1)-gram at its place and one word more, if that is still of the same caption.
            starts = starts[starts < len(words) - n + 1]
            starts = starts[captions[starts] == captions[starts + n - 1]]
            distinct, ids[starts] = np.unique(ids[starts] * base + words[starts + n - 1], return_inverse=True)
            num_ids = max(len(distinct), 1)
        pairs, counts = np.unique(captions[starts] * num_ids + ids[starts], return_counts=True)
        yield _NGrams(pairs // num_ids, pairs % num_ids, counts, num_ids)


def _rarity(ngrams: _NGrams, reference: _Ints, picture: _Ints) -> _Floats:
    """Logarithm of the number of pictures per picture whose references hold the n-gram."""
    rows, entries = ngrams.of(reference)
    # Counted only because numpy then sorts, which is ten times faster here than its hash table.
    held, _ = np.unique(picture[rows] * ngrams.num_ids + ngrams.ids[entries], return_counts=True)
    frequency = np.bincount(held % ngrams.num_ids, minlength=ngrams.num_ids)
    rarity: _Floats = np.log(picture[-1] + 1) - np.log(np.maximum(frequency, 1))
    return rarity


def _similarity(ngrams: _NGrams, weights: _Floats, hypothesis: _Ints, reference: _Ints) -> _Floats:
    """Clipped cosine of every hypothesis and its reference; zero where one of them has no weight at all."""
    rows, entries = ngrams.of(hypothesis)
    found, matches = ngrams.find(reference[rows], ngrams.ids[entries])
    clipped = np.minimum(weights[entries[found]], weights[matches]) * weights[matches]
    products = _sums(rows[found], clipped, len(reference))
    norm = np.sqrt(_sums(ngrams.captions, weights**2, int(max(hypothesis.max(), reference.max())) + 1))
    norms = norm[hypothesis] * norm[reference]
    similarity: _Floats = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return similarity


def _sums(groups: _Ints, values: _Floats, num_groups: int) -> _Floats:
    # numpy makes integers of no values at all.
    return np.bincount(groups, values, minlength=num_groups).astype(np.float64)


def _numbering() -> defaultdict[str, int]:
    """Numbers strings as they are first asked for."""
    number_of: defaultdict[str, int] = defaultdict()
    number_of.default_factory = number_of.__len__
    return number_of


def _indices(numbers: Iterable[int]) -> _Ints:
    return np.fromiter(numbers, dtype=np.int64)
