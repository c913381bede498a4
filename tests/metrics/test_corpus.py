import json
import runpy
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from cider import make_captions
from synth2_lightning.metrics.corpus import check_corpus
from synth2_lightning.metrics.corpus_metrics import Bleu, Cider, CorpusMetric, Rouge

METRICS: list[type[CorpusMetric]] = [Bleu, Cider, Rouge]
RANK = Path(__file__).parent / "corpus_rank.py"


def compute(metric: CorpusMetric) -> list[float]:
    computed = metric.compute()
    return [value.item() for value in (computed.values() if isinstance(computed, dict) else [computed])]


@pytest.mark.parametrize("kind", METRICS)
def test_order_repeats_and_batches_do_not_change_a_bit(kind: type[CorpusMetric]) -> None:
    hypotheses, references = make_captions(30)
    keys = list(hypotheses)
    whole, parts = kind(), kind()
    whole.update(keys, [hypotheses[key] for key in keys], [references[key] for key in keys])
    for key in [*reversed(keys), *keys[:7]]:
        parts.update([key], [hypotheses[key]], [references[key]])
    assert compute(whole) == compute(parts)
    assert all(value > 0 for value in compute(whole)[:1])


@pytest.mark.parametrize("kind", METRICS)
def test_no_images_and_duplicate_keys_are_refused(kind: type[CorpusMetric]) -> None:
    metric = kind()
    metric.update([], [], [])
    with pytest.raises(ValueError, match=rf"{kind.__name__}.*update\(\)"):
        metric.compute()
    metric.update(["1", "1"], ["a cat", "a cat"], [["a cat"], ["a dog"]])
    with pytest.raises(ValueError, match=r"key '1'.*references differ"):
        metric.compute()


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Bleu.* 2 keys, 1 hypotheses.* 0 "):
        Bleu().update(["1", "2"], ["a"], [])


def test_a_corpus_without_captions_or_references_is_refused() -> None:
    with pytest.raises(ValueError, match=r"BLEU.*references"):
        check_corpus("BLEU", {}, {"1": ["a dog"]})
    with pytest.raises(ValueError, match=r"'1'.*references \(\)"):
        check_corpus("BLEU", {"1": "a dog"}, {})
    with pytest.raises(ValueError, match=r"'1'.*references 'a dog'"):
        check_corpus("BLEU", {"1": "a dog"}, {"1": "a dog"})


def split(keys: Sequence[str], size: int) -> list[list[list[str]]]:
    """Return the keys of each rank: as in a distributed sampler, padded with repeats; uneven; all on the last rank."""
    padded = [*keys, *keys[: -len(keys) % size]]
    uneven = [list(keys[rank::size]) + list(keys[:rank]) for rank in range(size)]
    return [[padded[rank::size] for rank in range(size)], uneven, [[]] * (size - 1) + [list(reversed(keys))]]


@pytest.mark.slow  # interpreters that each import torch and torchmetrics
@pytest.mark.parametrize("size", [1, 2, 4])
def test_scores_are_the_same_on_any_number_of_ranks(size: int, tmp_path: Path) -> None:
    hypotheses, references = make_captions(30)
    # Some references equal the answer, for VQA accuracy.
    references = {key: [hypotheses[key]] * (number % 4) + references[key] for number, key in enumerate(hypotheses)}
    corpus = json.dumps({"hypotheses": hypotheses, "references": references, "splits": split(list(hypotheses), size)})
    of_rank = runpy.run_path(str(RANK))
    with ThreadPoolExecutor(size) as pool:
        outputs = list(
            pool.map(
                lambda rank: subprocess.check_output(
                    [sys.executable, RANK, str(rank), str(size), tmp_path / "store", corpus]
                ),
                range(size),
            )
        )
    expected = []
    for kind in of_rank["METRICS"]:
        metric = kind()
        metric.update(list(hypotheses), list(hypotheses.values()), list(references.values()))
        with ExitStack() as stand_ins:
            for stand_in in of_rank["STAND_INS"]:
                stand_ins.enter_context(stand_in)
            expected.append(compute(metric))
    assert all(0 < score < 10 for scores in expected for score in scores)
    assert [json.loads(output) for output in outputs] == [expected * 3] * size
