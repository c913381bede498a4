import logging
import pickle
import random
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

from synth2_lightning.metrics.cider import cider, human_cider
from synth2_lightning.metrics.corpus import CorpusResult
from synth2_lightning.metrics.corpus_metrics import Cider, Rouge
from synth2_lightning.metrics.ptb import tokenize

REFERENCES = {
    "1": ("a red circle", "the red dot on a wall"),
    "2": ("two blue squares", "blue boxes, two of them"),
    "3": ("a man rides a horse",),
}
HYPOTHESES = {"1": "A red dot.", "2": "two blue boxes", "3": "a man on a horse"}


def reference_cider(hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> CorpusResult:
    from pycocoevalcap.cider.cider import Cider as CocoCider

    score, scores = CocoCider().compute_score(
        {key: [tokenize(text) for text in references[key]] for key in hypotheses},
        {key: [tokenize(text)] for key, text in hypotheses.items()},
    )
    return CorpusResult(float(score), dict(zip(hypotheses, map(float, scores), strict=True)))


def random_corpus(seed: int, num_images: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return captions of few words, so that many n-grams are shared; some are empty, repeated or of one word."""
    rng = random.Random(seed)
    words = ["a", "the", "red", "dog", "dog", "runs", "on", "grass", "Mr. Fox", "it's", "two", "cats", "7"]

    def caption() -> str:
        return " ".join(rng.choices(words, k=rng.choice([0, 1, 3, 6, 9, 15]))) + rng.choice(["", ".", " !"])

    references = {str(key): [caption() for _ in range(rng.randint(1, 6))] for key in range(num_images)}
    references["0"] = [references["1"][0]] * 2
    hypotheses = {key: rng.choice([caption(), rng.choice(texts)]) for key, texts in references.items()}
    return hypotheses, references


@pytest.mark.parametrize(("seed", "num_images"), [(0, 2), (1, 3), (2, 40), (3, 200)])
def test_equals_pycocoevalcap(seed: int, num_images: int) -> None:
    hypotheses, references = random_corpus(seed, num_images)
    ours, theirs = cider(hypotheses, references), reference_cider(hypotheses, references)
    assert theirs.score > 0.1
    assert ours.score == pytest.approx(theirs.score, abs=1e-6)
    assert ours.scores == pytest.approx(theirs.scores, abs=1e-6)


def test_a_perfect_corpus_scores_ten() -> None:
    references = {"1": ["one dog runs on green grass"], "2": ["many people sit at small tables"]}
    assert cider({key: texts[0] for key, texts in references.items()}, references).score == pytest.approx(10.0)


def test_captions_without_any_word_score_zero() -> None:
    assert cider({"1": "", "2": "..."}, {"1": [""], "2": ["a dog"]}).scores == {"1": 0.0, "2": 0.0}


def test_document_frequencies_count_scored_images_only() -> None:
    more = {**REFERENCES, "4": ("a red dot", "two blue boxes")}
    assert cider(HYPOTHESES, more) == cider(HYPOTHESES, REFERENCES)


def test_score_of_a_corpus_is_not_the_mean_of_its_parts() -> None:
    hypotheses, references = random_corpus(4, 40)
    keys = list(hypotheses)
    halves = [cider({key: hypotheses[key] for key in part}, references).score for part in (keys[:20], keys[20:])]
    assert abs(cider(hypotheses, references).score - np.mean(halves)) > 1e-3


def test_no_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="CIDEr"):
        cider({}, REFERENCES)


@pytest.mark.parametrize("references", [{}, {"1": []}, {"1": "a caption, not a list of them"}])
def test_image_without_references_is_an_error(references: dict[str, Sequence[str]]) -> None:
    with pytest.raises(ValueError, match=r"'1'.*references"):
        cider({"1": "a dog"}, references)


def test_a_single_image_scores_zero_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert cider({"7": "a dog"}, {"7": ["a dog"]}).score == 0.0
    assert "CIDEr over the single image '7' is always 0" in caplog.text


def test_human_cider_leaves_one_reference_out() -> None:
    references = {"1": ["a red dog", "the red dog", "a dog"], "2": ["two cats", "two small cats", "small cats"]}
    rounds = [
        reference_cider(
            {key: texts[turn] for key, texts in references.items()},
            {key: [text for place, text in enumerate(texts) if place != turn] for key, texts in references.items()},
        )
        for turn in range(3)
    ]
    result = human_cider(references)
    assert result.score == pytest.approx(np.mean([one.score for one in rounds]))
    assert result.scores["2"] == pytest.approx(np.mean([one.scores["2"] for one in rounds]))


def test_human_cider_keeps_images_with_fewer_references_in_every_round() -> None:
    few, many = ["a red dog", "the dog and a dog"], ["two cats", "two small cats", "small cats"]
    rounds = [
        reference_cider({"1": few[0], "2": many[0]}, {"1": [few[1]], "2": many[1:]}),
        reference_cider({"1": few[1], "2": many[1]}, {"1": [few[0]], "2": [many[0], many[2]]}),
        reference_cider({"1": few[0], "2": many[2]}, {"1": [few[1]], "2": many[:2]}),
    ]
    assert human_cider({"1": few, "2": many}).score == pytest.approx(np.mean([one.score for one in rounds]))


def test_human_cider_needs_two_references() -> None:
    with pytest.raises(ValueError, match=r"'3'.* 1 reference"):
        human_cider(REFERENCES)
    with pytest.raises(ValueError, match=r"CIDEr|Cider"):
        human_cider({})


def filled(keys: Sequence[str]) -> Cider:
    metric = Cider()
    metric.update(list(keys), [HYPOTHESES[key] for key in keys], [REFERENCES[key] for key in keys])
    return metric


def test_metric_is_independent_of_order_and_repeats() -> None:
    expected = torch.tensor(cider(HYPOTHESES, REFERENCES).score)
    assert filled("123").compute() == expected
    metric = filled("31")
    metric.update(["2", "1"], [HYPOTHESES["2"], HYPOTHESES["1"]], [list(REFERENCES["2"]), list(REFERENCES["1"])])
    assert metric.compute() == expected
    assert metric.higher_is_better


def test_metric_of_a_batch_and_of_all_batches() -> None:
    metric = Cider()
    for keys in ("12", "23"):
        batch = metric(list(keys), [HYPOTHESES[key] for key in keys], [REFERENCES[key] for key in keys])
        assert batch == filled(keys).compute()
    assert metric.compute() == filled("123").compute()


def test_metric_resets() -> None:
    metric = filled("123")
    metric.compute()
    metric.reset()
    metric.update(["1", "2"], ["a", "b"], [["c"], ["d"]])
    assert metric.compute() == 0.0


def test_metric_survives_pickling_cloning_and_moving() -> None:
    metric = filled("123")
    moved = metric.clone().to("meta").to(torch.float16)
    assert moved.rows == metric.rows
    copy = pickle.loads(pickle.dumps(metric))
    assert copy.compute() == metric.compute()


def test_metric_refuses_two_images_of_one_key() -> None:
    metric = filled("12")
    metric.update(["1"], ["a cat"], [["a cat on a mat"]])
    with pytest.raises(ValueError, match=r"key '1'.*references differ"):
        metric.compute()


def test_metric_refuses_columns_of_different_lengths() -> None:
    with pytest.raises(ValueError, match=r" 2 keys, 1 hypotheses.* 0 "):
        Cider().update(["1", "2"], ["a"], [])


def test_metric_refuses_images_without_references() -> None:
    with pytest.raises(ValueError, match=r"'1'.*references"):
        Cider().update(["1"], ["a dog"], [[]])


def test_metric_without_updates_is_an_error() -> None:
    metric = Cider()
    metric.update([], [], [])
    with pytest.raises(ValueError, match=r"CIDEr|Cider"):
        metric.compute()


def test_several_metrics_are_computed_in_a_collection() -> None:
    metrics = MetricCollection({"cider": Cider(), "rouge": Rouge()}, compute_groups=False)
    captions = ["a red circle", "a dot"]
    references = [["a red circle on the left"], ["two blue squares"]]
    metrics.update(["1", "2"], captions, references)
    by_key = dict(zip("12", captions, strict=True)), dict(zip("12", references, strict=True))
    assert float(metrics.compute()["cider"]) == pytest.approx(cider(*by_key).score)
