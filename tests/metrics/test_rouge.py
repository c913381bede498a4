import numpy as np
import pytest
from pycocoevalcap.rouge.rouge import Rouge as CocoRouge

from cider import make_captions
from synth2_lightning.metrics.corpus_metrics import Rouge
from synth2_lightning.metrics.ptb import tokenize
from synth2_lightning.metrics.rouge import rouge

ODD = {
    "empty": ("", ["a dog runs"]),
    "both empty": ("", ["", "a dog"]),
    "nothing in common": ("xyzzy", ["a dog"]),
    "best of two": ("a dog on grass", ["dog", "a big brown dog on the green grass"]),
    "space inside": ("about 1 1/2 cups", ["1 1/2 cups"]),
}


def test_equals_pycocoevalcap_on_the_corpus_and_on_every_image() -> None:
    hypotheses, references = make_captions(400)
    hypotheses |= {key: hypothesis for key, (hypothesis, _) in ODD.items()}
    references |= {key: texts for key, (_, texts) in ODD.items()}
    score, scores = CocoRouge().compute_score(
        {key: [tokenize(text) for text in texts] for key, texts in references.items()},
        {key: [tokenize(text)] for key, text in hypotheses.items()},
    )
    ours = rouge(hypotheses, references)
    assert score > 0.1
    assert ours.score == pytest.approx(score, abs=1e-9)
    np.testing.assert_allclose(list(ours.scores.values()), scores, atol=1e-9)


def test_insertions_and_word_order_lower_the_score() -> None:
    result = rouge(
        {"1": "police killed the gunman", "2": "the gunman killed police"},
        {key: ["police kill the gunman"] for key in "12"},
    )
    assert result.scores == {"1": pytest.approx(3 / 4), "2": pytest.approx(2 / 4)}


def test_metric_equals_the_functional_form() -> None:
    metric = Rouge()
    metric.update(["1"], ["a dog"], [["a red dog"]])
    assert metric.compute().item() == pytest.approx(rouge({"1": "a dog"}, {"1": ["a red dog"]}).score)
