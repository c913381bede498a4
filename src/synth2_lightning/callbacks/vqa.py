"""Scores the answers of a validation or test pass by VQA accuracy, over all questions and by kind of question."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer

from synth2_lightning.callbacks.corpus_score import CorpusScore, CorpusScoreCallback
from synth2_lightning.metrics.vqa import VqaAccuracy, vqa_accuracy
from synth2_lightning.types import ImageTextBatch

_LEAST_SHARE = 0.005  # rarer kinds of questions are not listed


class VQAAccuracyCallback(CorpusScoreCallback):
    """Logs ``val/vqa_accuracy`` or ``test/vqa_accuracy`` and writes ``predictions.jsonl`` and ``protocol.json``.

    The accuracy, from 0 to 1, is that of the public evaluation: see :func:`~synth2_lightning.metrics.vqa.vqa_accuracy`.
    ``protocol.json`` also has it by the first two words of the questions ("how many"), and ``blind_score``: what an
    answer scores that is the most frequent one to questions of these words, whatever the picture shows.

    Args:
        folder: Where the files go; by default the run's log folder. Each pass writes
            ``vqa_accuracy/<stage>-step=<n>/``.

    Example:
        >>> VQAAccuracyCallback().folder is None
        True
    """

    name = "vqa_accuracy"

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(VqaAccuracy(), folder)
        self._questions: dict[str, str] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last pass."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._questions = {}

    on_test_epoch_start = on_validation_epoch_start

    def take(self, outputs: Mapping[str, Any], batch: ImageTextBatch) -> None:
        """Take questions and answers of a batch.

        Raises:
            ValueError: If nothing was asked.
        """
        if len(batch.prompts) != len(batch):
            raise ValueError(
                f"VQAAccuracyCallback was given {len(batch)} answers to {len(batch.prompts)} questions; expected one "
                "each. Use data that fills ImageTextBatch.prompts."
            )
        super().take(outputs, batch)
        self._questions.update(zip(batch.keys, batch.prompts, strict=True))

    def score(self, hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> CorpusScore:
        """Score answers against those of people, both by key."""
        questions = _gather(self._questions)
        accuracies = vqa_accuracy(hypotheses, references).accuracies
        blind = vqa_accuracy(_guess(questions, references), references).accuracies
        kinds = _group(questions, hypotheses)
        card = {
            "metric": "VQA accuracy",
            "blind_score": _mean(blind, blind),
            "by_first_words": {
                words: {
                    "num_questions": len(keys),
                    "score": _mean(accuracies, keys),
                    "blind_score": _mean(blind, keys),
                }
                for words, keys in sorted(kinds.items(), key=lambda kind: -len(kind[1]))
                if len(keys) >= _LEAST_SHARE * len(hypotheses)
            },
        }
        rows = [
            {
                "key": key,
                "question": questions[key],
                "answer": answer,
                "references": references[key],
                "vqa_accuracy": round(accuracies[key], 6),
            }
            for key, answer in hypotheses.items()
        ]
        return CorpusScore(_mean(accuracies, accuracies), card, rows)


def _gather(questions: dict[str, str]) -> dict[str, str]:
    if not dist.is_initialized():
        return questions
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, questions)
    return {key: question for part in gathered for key, question in part.items()}


def _guess(questions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Give the answer that is most frequent for the first two words of the question."""
    guesses: dict[str, str] = {}
    for keys in _group(questions, references).values():
        ((answer, _),) = Counter(answer for key in keys for answer in references[key]).most_common(1)
        guesses |= dict.fromkeys(keys, answer)
    return guesses


def _group(questions: Mapping[str, str], keys: Mapping[str, Any]) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for key in keys:
        groups[" ".join(questions[key].lower().split()[:2])].append(key)
    return groups


def _mean(scores: Mapping[str, float], keys: Sequence[str] | Mapping[str, Any]) -> float:
    return sum(scores[key] for key in keys) / len(keys)
