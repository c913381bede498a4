"""VQA accuracy of the answers of a validation or test epoch, overall and by type of question."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer

from synth2_lightning.callbacks.corpus_score import CorpusScore, CorpusScoreCallback
from synth2_lightning.metrics.vqa import VQAAccuracy, vqa_accuracy
from synth2_lightning.types import ImageTextBatch

_MIN_FRACTION = 0.005  # of all questions; rarer types are not listed


class VQAAccuracyCallback(CorpusScoreCallback):
    """Logs ``val/vqa_accuracy`` or ``test/vqa_accuracy`` and writes ``predictions.jsonl`` and ``protocol.json``.

    The accuracy, from 0 to 1, is that of the official evaluation: see
    :func:`~synth2_lightning.metrics.vqa.vqa_accuracy`. ``protocol.json`` also has the accuracy by the first two words
    of the questions ("how many"), and ``blind_score``, the accuracy of the most frequent answer to questions with the
    same first two words, without the image.

    Args:
        folder: Parent of the output folder; by default the run's log folder. Each epoch writes to
            ``vqa_accuracy/<stage>-step=<n>/``.
    """

    name = "vqa_accuracy"

    def __init__(self, folder: str | None = None) -> None:
        super().__init__(VQAAccuracy(), folder)
        self._questions: dict[str, str] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run at the start of a validation or test: resets the metric and the questions."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._questions = {}

    on_test_epoch_start = on_validation_epoch_start

    def update(self, outputs: Mapping[str, Any], batch: ImageTextBatch) -> None:
        """Add the questions and answers of a batch.

        Raises:
            ValueError: If the batch does not have one question per image.
        """
        if len(batch.prompts) != len(batch):
            raise ValueError(
                f"VQAAccuracyCallback got {len(batch)} answers to {len(batch.prompts)} questions; expected one answer "
                "per question. Use data that fills ImageTextBatch.prompts."
            )
        super().update(outputs, batch)
        self._questions.update(zip(batch.keys, batch.prompts, strict=True))

    def score(self, hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> CorpusScore:
        """Return the score of answers against the reference answers, both by key."""
        questions = _gather(self._questions)
        accuracies = vqa_accuracy(hypotheses, references).scores
        blind = vqa_accuracy(_most_frequent_answers(questions, references), references).scores
        types = _group(questions, hypotheses)
        card = {
            "metric": "VQA accuracy",
            "blind_score": _mean(blind, blind),
            "by_first_words": {
                words: {"num_questions": len(keys), "score": _mean(accuracies, keys), "blind_score": _mean(blind, keys)}
                for words, keys in sorted(types.items(), key=lambda item: -len(item[1]))
                if len(keys) >= _MIN_FRACTION * len(hypotheses)
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
    gathered = [questions] * dist.get_world_size()
    dist.all_gather_object(gathered, questions)
    return {key: question for part in gathered for key, question in part.items()}


def _most_frequent_answers(questions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the most frequent answer to questions with the same first two words, for every key."""
    answers: dict[str, str] = {}
    for keys in _group(questions, references).values():
        ((answer, _),) = Counter(answer for key in keys for answer in references[key]).most_common(1)
        answers |= dict.fromkeys(keys, answer)
    return answers


def _group(questions: Mapping[str, str], keys: Mapping[str, Any]) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for key in keys:
        groups[" ".join(questions[key].lower().split()[:2])].append(key)
    return groups


def _mean(scores: Mapping[str, float], keys: Sequence[str] | Mapping[str, Any]) -> float:
    return sum(scores[key] for key in keys) / len(keys)
