import pytest
import torch

from synth2_lightning.nn import nearest_codes as module
from synth2_lightning.nn.nearest_codes import distances_to_nearest, nearest_codes


def test_chunks_have_the_same_codes_as_all_vectors_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    features, codes = torch.randn(3, 20, 8), torch.randn(2, 50, 8)
    ids = nearest_codes(features, codes)
    distances = distances_to_nearest(features.flatten(0, 1), codes[0])
    monkeypatch.setattr(module, "MAX_DISTANCES", 16 * 50)
    assert torch.equal(nearest_codes(features, codes), ids)
    assert all(map(torch.equal, distances_to_nearest(features.flatten(0, 1), codes[0]), distances))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DISTANCES", 7 * 50)
    rows: list[int] = []
    cdist = torch.cdist

    def spy(vectors: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        rows.append(len(vectors))
        return cdist(vectors, codes)

    monkeypatch.setattr(torch, "cdist", spy)
    distances_to_nearest(torch.randn(60, 8), torch.randn(50, 8))
    assert rows == [7] * 8 + [4]


def test_more_codes_than_the_limit_are_compared_one_vector_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DISTANCES", 10)
    features, codes = torch.randn(1, 4, 8), torch.randn(1, 50, 8)
    assert torch.equal(nearest_codes(features, codes)[0, :, 0], torch.cdist(features[0], codes[0]).argmin(-1))


def test_no_vectors_have_no_codes() -> None:
    assert nearest_codes(torch.zeros(0, 4, 8), torch.zeros(2, 5, 8)).shape == (0, 4, 2)
