"""VQA accuracy: min(number of annotators who gave the answer / 3, 1).

S. Antol et al. 2015 (https://arxiv.org/abs/1505.00468) and the rules of https://visualqa.org/evaluation.html. Results
equal those of the public evaluation (``vqaEval.py`` of GT-Vision-Lab/VQA, commit a013f00), including its peculiarities:

* If all annotators agree, answers are compared without normalization, except for surrounding white space: ``Yes.`` is
  wrong if all ten annotators answered ``yes``. Models should answer as annotators do: short, in lower case, without a
  period. Answers are normalized only if annotators disagree. (Early versions of the evaluation always normalized the
  model's answer, and only the punctuation of the annotators' answers.)
* A punctuation mark is deleted if it is next to a space anywhere in the answer, or if any digits are grouped by a
  comma; otherwise it is replaced with a space. Colons, apostrophes, percent signs and others are kept.
* The first 32 periods that are not followed by a digit are deleted: ``.5`` keeps its period, ``3.`` does not.
* ``none`` becomes ``0``, and number words up to ten become digits. An answer of articles alone becomes empty.
* ``im``, ``ive`` and ``id've`` are kept, because the evaluation's table has them capitalized but answers are in lower
  case; ``lets`` and ``shes`` are kept as well. ``somebody'd`` loses its apostrophe.
"""

import re
from collections.abc import Mapping, Sequence

from synth2_lightning.metrics.corpus import CorpusResult
from synth2_lightning.metrics.corpus_metrics import CorpusMetric

_NUM_AGREEING = 3  # annotators, for an accuracy of 1

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_GROUPS = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBER_WORDS)}
# Words that lack one apostrophe of these are corrected.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_APOSTROPHES_BACK = {
    word[: match.start()] + word[match.end() :]: word
    for word in _CONTRACTIONS.split()
    for match in re.finditer("'", word)
} | {"somebody'd": "somebodyd"}  # reversed in the public evaluation, too


def vqa_accuracy(answers: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> CorpusResult:
    """Return VQA accuracy in [0, 1], averaged over leaving out each annotator in turn.

    Args:
        answers: Generated answer by question key.
        references: Annotators' answers by question key: ten in VQAv2 and VizWiz; in OKVQA, five answers twice each.

    Raises:
        ValueError: If there is no question, or a question has fewer than two reference answers.

    Example:
        >>> round(vqa_accuracy({"1": "Yes."}, {"1": ["yes"] * 3 + ["no"] * 7}).score, 3)
        0.9
    """
    if not answers:
        raise ValueError("VQA accuracy got no questions; expected at least one with reference answers.")
    accuracies = {key: _accuracy(key, answer, references.get(key, ())) for key, answer in answers.items()}
    return CorpusResult(sum(accuracies.values()) / len(accuracies), accuracies)


class VQAAccuracy(CorpusMetric):
    """VQA accuracy of the answers to all questions."""

    _score = staticmethod(vqa_accuracy)


def normalize_answer(answer: str) -> str:
    """Normalize an answer: lower case, no punctuation or articles, number words as digits.

    Example:
        >>> normalize_answer("The two dogs, arent they?"), normalize_answer("1,000"), normalize_answer("3.5 m.")
        ("2 dogs aren't they", '1000', '3.5 m')
    """
    words = _drop_punctuation(_strip(answer)).lower().split()
    kept = [word for word in (_NUMBERS.get(word, word) for word in words) if word not in _ARTICLES]
    return " ".join(_APOSTROPHES_BACK.get(word, word) for word in kept)


def _accuracy(key: str, answer: str, references: Sequence[str]) -> float:
    if isinstance(references, str) or len(references) < 2:
        raise ValueError(
            f"Question {key!r} has the answers {references!r}; expected a sequence of at least two, as ten in VQAv2."
        )
    answer, references = _strip(answer), [_strip(each) for each in references]
    if len(set(references)) > 1:
        answer, references = normalize_answer(answer), [normalize_answer(each) for each in references]
    matches = [each == answer for each in references]
    return sum(min((sum(matches) - match) / _NUM_AGREEING, 1.0) for match in matches) / len(references)


def _strip(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _drop_punctuation(text: str) -> str:
    """Delete marks next to a space, or all marks if digits are grouped by commas; replace the others with spaces."""
    grouped = _DIGIT_GROUPS.search(text) is not None
    kept = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if beside_space or grouped else " ")
    return _PERIOD.sub("", kept, count=_MOST_PERIODS)
