import torch
from torch import Tensor

from synth2_lightning.encoders.text_cache import TextCache


class Encoder:
    """Encoder with one row of four bytes per word; records its texts."""

    def __init__(self) -> None:
        self.got: list[list[str]] = []

    def __call__(self, texts: list[str]) -> list[Tensor]:
        self.got.append(texts)
        return [torch.full((len(text.split()), 1), float(len(text))) for text in texts]


def test_each_text_is_encoded_once() -> None:
    cache, encode = TextCache(100), Encoder()
    first = cache.look_up(["a dog", "a cat", "a dog"], encode)
    second = cache.look_up(["a cat", "a small dog", "a dog"], encode)
    third = cache.look_up(["a dog", "a small dog"], encode)
    assert encode.got == [["a dog", "a cat"], ["a small dog"]]
    assert second[0] is first[1]
    assert second[2] is first[0] is first[2] is third[0]
    assert [len(row) for row in second] == [2, 3, 2]


def test_what_exceeds_the_limit_is_encoded_each_time() -> None:
    cache, encode = TextCache(20), Encoder()
    for _ in range(2):
        rows = cache.look_up(["a dog", "a small red cat", "a fox"], encode)  # 8, 16 and 8 bytes
        assert [len(row) for row in rows] == [2, 4, 2]
    assert encode.got == [["a dog", "a small red cat", "a fox"], ["a small red cat"]]
    assert cache.num_bytes == 16


def test_a_limit_of_0_stores_nothing() -> None:
    cache, encode = TextCache(0), Encoder()
    for _ in range(2):
        cache.look_up(["a dog"], encode)
    assert encode.got == [["a dog"]] * 2
