"""VQA accuracy: an answer is right as far as three people gave it.

S. Antol et al. 2015 (https://arxiv.org/abs/1505.00468) and the rules of https://visualqa.org/evaluation.html, held to
the public evaluation (``vqaEval.py`` of GT-Vision-Lab/VQA, commit a013f00), its peculiarities included:

* Where all people agree, answers are compared as they are written, but for white space around them: ``Yes.`` is wrong
  where ten people said ``yes``. A model had better write answers as people do: short, in small letters, without a
  period. Only where people differ are their answers and the model's normalised. (The evaluation's first versions
  normalised the model's answer always, and of people's answers the punctuation alone.)
* A mark of punctuation goes where it stands beside a space anywhere in the answer, or if any digits are grouped by a
  comma; elsewhere a space takes its place. Colons, apostrophes, percent signs and the like stay.
* Of the periods that no digit follows, the first 32 go. ``.5`` keeps its own, ``3.`` does not.
* ``none`` is ``0``, and numbers are read up to ten. An answer of articles alone is empty.
* ``im``, ``ive`` and ``id've`` stay, because the table has them in capitals and is asked in small letters; so do
  ``lets`` and ``shes``. ``somebody'd`` loses its apostrophe.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synth2_lightning.metrics.corpus import CorpusMetric

_NUM_AGREEING = 3  # people who make an answer right

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_GROUPS = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBER_WORDS)}
# An answer that lacks one apostrophe of these gets it back.
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
} | {"somebody'd": "somebodyd"}  # the other way round in the public evaluation, too


@dataclass(frozen=True, slots=True)
class VqaResult:
    """Accuracy over questions, and of every question, from 0 to 1.

    Example:
        >>> VqaResult(accuracy=0.65, accuracies={"7": 0.3, "8": 1.0}).accuracy
        0.65
    """

    accuracy: float
    accuracies: dict[str, float]


def vqa_accuracy(answers: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> VqaResult:
    """Score answers against those of people: min(number of people who gave it / 3, 1), each of them left out in turn.

    Args:
        answers: The answer to every question, by key.
        references: Of every question, the answers of people: ten in VQAv2 and VizWiz; each of OKVQA's five twice.

    Raises:
        ValueError: If there is no question, or one has fewer than two answers of people.

    Example:
        >>> people = ["yes"] * 3 + ["no"] * 7
        >>> round(vqa_accuracy({"1": "Yes."}, {"1": people}).accuracy, 3)  # nine of ten times 3, seven of ten times...
        0.9
    """
    if not answers:
        raise ValueError("VQA accuracy was asked for over no question at all; expected answers with those of people.")
    accuracies = {key: _accuracy(key, answer, references.get(key, ())) for key, answer in answers.items()}
    return VqaResult(sum(accuracies.values()) / len(accuracies), accuracies)


class VqaAccuracy(CorpusMetric):
    """VQA accuracy over all questions of all ranks, the same for any number of ranks.

    Example:
        >>> metric = VqaAccuracy()
        >>> metric.update(["1", "2"], ["two", "a dog"], [["2"] * 9 + ["3"], ["cat"] * 10])
        >>> metric.compute()
        tensor(0.5000)
    """

    def compute(self) -> Tensor:
        """Score all questions of all ranks.

        Raises:
            ValueError: If there is no question, if two share a key, or if one has fewer than two answers of people.
        """
        return torch.tensor(vqa_accuracy(*self.corpus()).accuracy, device=self.device)


def normalize_answer(answer: str) -> str:
    """Write an answer as it is compared where people differ: no punctuation, articles or capitals; "two" is "2".

    Example:
        >>> normalize_answer("The two dogs, arent they?"), normalize_answer("1,000"), normalize_answer("3.5 m.")
        ("2 dogs aren't they", '1000', '3.5 m')
    """
    words = _drop_punctuation(_strip(answer)).lower().split()
    kept = [word for word in (_NUMBERS.get(word, word) for word in words) if word not in _ARTICLES]
    return " ".join(_APOSTROPHES_BACK.get(word, word) for word in kept)


def _accuracy(key: str, answer: str, people: Sequence[str]) -> float:
    if isinstance(people, str) or len(people) < 2:
        raise ValueError(
            f"Question {key!r} has the answers {people!r}; expected a sequence of at least two, one to be left out in "
            "turn; benchmarks have ten."
        )
    answer, people = _strip(answer), [_strip(each) for each in people]
    if len(set(people)) > 1:
        answer, people = normalize_answer(answer), [normalize_answer(each) for each in people]
    matches = [each == answer for each in people]
    return sum(min((sum(matches) - match) / _NUM_AGREEING, 1.0) for match in matches) / len(people)


def _strip(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _drop_punctuation(text: str) -> str:
    """Drop each mark that stands beside a space, or all if digits are grouped by commas; else a space replaces it."""
    grouped = _DIGIT_GROUPS.search(text) is not None
    kept = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if beside_space or grouped else " ")
    return _PERIOD.sub("", kept, count=_MOST_PERIODS)
