import pickle
from dataclasses import replace

import pytest
import torch

from synth2_lightning.testing import tiny_batch
from synth2_lightning.types import (
    CaptionBatch,
    GenerationSettings,
    ImageTextBatch,
    MixedImages,
    Pixels,
    SampleInfo,
    TokenLoss,
    VQTokens,
)


def images() -> list[Pixels | VQTokens]:
    ids = torch.zeros(2, 4, 1, dtype=torch.long)
    return [
        Pixels(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)),
        VQTokens(ids, "tiny-16:0"),
    ]


def test_every_field_of_every_kind_of_image_moves() -> None:
    mixed = MixedImages(tuple(images()))
    moved = mixed.to("meta")
    assert len(moved) == 1 + 2
    assert [type(part) for part in moved.parts] == [type(part) for part in mixed.parts]
    for part in moved.parts:
        tensors = [getattr(part, name) for name in ("values", "ids") if hasattr(part, name)]
        assert tensors
        assert all(tensor.device.type == "meta" for tensor in tensors)


@pytest.mark.parametrize("is_pinned", [False, True])
def test_only_page_locked_memory_is_copied_without_waiting(is_pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bool] = []
    move = torch.Tensor.to

    def record(tensor: torch.Tensor, device: str, non_blocking: bool = False) -> torch.Tensor:
        found.append(non_blocking)
        return move(tensor, device, non_blocking=non_blocking)

    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: is_pinned)  # there is no GPU to pin memory for
    monkeypatch.setattr(torch.Tensor, "to", record)
    MixedImages(tuple(images())).to("meta")
    assert found == [is_pinned] * 2


def test_concat_keeps_rows_in_order_and_shares_memory() -> None:
    first, second = tiny_batch(2, seed=0), tiny_batch(3, seed=1)
    joined = ImageTextBatch.concat([first, second])
    assert joined.keys == first.keys + second.keys
    assert joined.references == first.references + second.references
    assert isinstance(joined.image, MixedImages)
    assert isinstance(first.image, Pixels)
    assert isinstance(joined.image.parts[0], Pixels)
    assert joined.image.parts[0].values.data_ptr() == first.image.values.data_ptr()


def test_concat_flattens_mixed_parts() -> None:
    once = ImageTextBatch.concat([tiny_batch(1), tiny_batch(1)])
    twice = ImageTextBatch.concat([once, tiny_batch(1)])
    assert isinstance(twice.image, MixedImages)
    assert all(isinstance(part, Pixels) for part in twice.image.parts)
    assert len(twice.image.parts) == 3


def test_concat_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no batch"):
        ImageTextBatch.concat([])


def test_token_loss_weighs_tokens_not_rows() -> None:
    assert float(TokenLoss(torch.tensor([9.0, 1.0]), torch.tensor([9, 1])).mean()) == 1.0


def test_a_batch_without_a_target_is_an_error_not_a_zero_loss() -> None:
    with pytest.raises(ValueError, match=r"None of the 2.*target token"):
        TokenLoss(torch.zeros(2), torch.zeros(2, dtype=torch.long)).mean()


def test_weighted_rows_count_as_often_as_their_weights_say() -> None:
    losses = TokenLoss(torch.tensor([6.0, 2.0]), torch.tensor([3, 2]))
    twice = TokenLoss(torch.tensor([6.0, 6.0, 2.0]), torch.tensor([3, 3, 2]))
    assert torch.equal(losses.weighted(torch.tensor([2.0, 1.0])).mean(), twice.mean())
    assert losses.weighted(None) is losses
    assert float(losses.weighted(torch.tensor([0.1, 0.0])).mean()) == pytest.approx(2.0)  # of 0.3 tokens


def test_rows_without_weights_have_the_weight_one_beside_others() -> None:
    plain, weighted = tiny_batch(2), replace(tiny_batch(1), weights=torch.tensor([0.5]))
    assert ImageTextBatch.concat([plain, plain]).weights is None
    joined = ImageTextBatch.concat([plain, weighted])
    assert joined.weights is not None
    assert joined.weights.tolist() == [1.0, 1.0, 0.5]
    moved = joined.to("meta")
    assert moved.weights is not None
    assert moved.weights.device.type == "meta"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_new_tokens", 0, "1 or more"),
        ("num_beams", 0, "1 or more"),
        ("temperature", 0.0, "above 0"),
        ("temperature", float("nan"), "above 0"),
        ("top_p", 0.0, "above 0 and at most 1"),
        ("top_p", 1.1, "above 0 and at most 1"),
        ("length_penalty", float("nan"), "a finite number"),
        ("repetition_penalty", 0.0, "above 0"),
        ("no_repeat_ngram_size", -1, "0 or more"),
    ],
)
def test_generation_settings_out_of_range_are_refused(name: str, value: float, expected: str) -> None:
    with pytest.raises(ValueError, match=rf"GenerationSettings\.{name} is {value}; expected .*{expected}"):
        GenerationSettings(**{name: value})  # type: ignore[arg-type]


def test_columns_are_those_of_the_samples() -> None:
    samples = (SampleInfo("0", "coco"), SampleInfo("1", "made", "otter", 7))
    batch = CaptionBatch((("a", "c"), ("b",)), (("a",), ("b",)), samples)
    assert (len(batch), batch.keys, batch.sources, batch.seeds) == (2, ("0", "1"), ("coco", "made"), (7,))
    assert pickle.loads(pickle.dumps(batch)) == batch
