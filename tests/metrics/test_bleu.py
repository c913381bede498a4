import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu as CocoBleu

from cider import make_captions
from synth2_lightning.metrics.bleu import bleu
from synth2_lightning.metrics.corpus_metrics import Bleu
from synth2_lightning.metrics.ptb import tokenize

ODD = {
    "empty": ("", ["a dog runs", "a dog"]),
    "one word": ("dog", ["a dog"]),
    "no reference word": ("xyzzy", ["a dog", ""]),
    "between two lengths": ("a dog runs on grass", ["a dog runs", "a dog runs on the green grass", "dog"]),
    "clipped": ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
    "space inside": ("about 1 1/2 cups", ["1 1/2 cups"]),
}


def test_equals_pycocoevalcap_on_the_corpus_and_on_every_image() -> None:
    hypotheses, references = make_captions(400)
    hypotheses |= {key: hypothesis for key, (hypothesis, _) in ODD.items()}
    references |= {key: texts for key, (_, texts) in ODD.items()}
    corpus, scores = CocoBleu(4).compute_score(
        {key: [tokenize(text) for text in texts] for key, texts in references.items()},
        {key: [tokenize(text)] for key, text in hypotheses.items()},
        verbose=0,
    )
    ours = bleu(hypotheses, references)
    assert corpus[3] > 0.01
    assert ours.corpus == pytest.approx(corpus, abs=1e-9)
    np.testing.assert_allclose(list(ours.scores.values()), np.array(scores).T, atol=1e-9)


def test_counts_are_clipped_as_in_the_papers_example() -> None:
    hypothesis, references = ODD["clipped"]
    assert bleu({"1": hypothesis}, {"1": references}).corpus[0] == pytest.approx(2 / 7)


def test_the_corpus_score_differs_from_the_mean_over_images() -> None:
    hypotheses = {"1": "a dog", "2": "a cat sits on a mat"}
    result = bleu(hypotheses, {"1": ["a dog"], "2": ["a cat sits on the mat"]})
    assert result.corpus[0] == pytest.approx(7 / 8)
    assert np.mean([score[0] for score in result.scores.values()]) == pytest.approx((1 + 5 / 6) / 2)


def test_metric_names_the_four_lengths() -> None:
    metric = Bleu()
    metric.update(["1"], ["a cat sits on a mat"], [["a cat sits on the mat"]])
    assert [(name, round(value.item(), 4)) for name, value in metric.compute().items()] == [
        ("bleu_1", 0.8333),
        ("bleu_2", 0.7071),
        ("bleu_3", 0.63),
        ("bleu_4", 0.5373),
    ]
