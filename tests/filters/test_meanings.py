import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from synth2_lightning.filters import meanings
from synth2_lightning.filters.meanings import SimilarMeanings, find_largest_cosines, keep_apart
from synth2_lightning.testing import TinyTextEncoder
from synth2_lightning.types import CaptionRecord


def keep_one_by_one(embeddings: Tensor, threshold: float) -> list[bool]:
    kept: list[Tensor] = []
    decisions = []
    for row in embeddings:
        decisions.append(all(float(row @ other) < threshold for other in kept))
        if decisions[-1]:
            kept.append(row)
    return decisions


@pytest.mark.parametrize("num_rows", [0, 1, 7, 8, 50])
def test_blocks_decide_as_one_by_one(num_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meanings, "_NUM_ROWS", 8)
    monkeypatch.setattr(meanings, "_NUM_COLUMNS", 5)
    embeddings = normalize(torch.randn(num_rows, 4), dim=1)
    decisions = keep_apart(embeddings, 0.7).tolist()
    assert decisions == keep_one_by_one(embeddings, 0.7)
    assert num_rows < 50 or 5 < sum(decisions) < 45


def test_largest_cosines_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meanings, "_NUM_ROWS", 3)
    monkeypatch.setattr(meanings, "_NUM_COLUMNS", 4)
    one, other = normalize(torch.randn(10, 6), dim=1), normalize(torch.randn(9, 6), dim=1)
    torch.testing.assert_close(find_largest_cosines(one, other), (one @ other.T).amax(1))
    assert find_largest_cosines(one, other[:0]).tolist() == [-1.0] * 10


def test_the_first_of_a_meaning_stays() -> None:
    captions = ("a bright field", "a dark sea", "field a bright", "a dark sea", "two owls")
    judge = SimilarMeanings(TinyTextEncoder(), threshold=0.95)
    verdicts = judge.judge([CaptionRecord(str(number), caption) for number, caption in enumerate(captions)])
    assert [bool(verdict.reason) for verdict in verdicts] == [False, False, True, True, False]
    assert judge.judge([]) == []
    assert judge.provenance() == {"encoder": "tiny", "threshold": 0.95}


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    message = rf"SimilarMeanings.*threshold={threshold}.*cosine"
    with pytest.raises(ValueError, match=message):
        SimilarMeanings(TinyTextEncoder(), threshold)
