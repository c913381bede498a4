from collections.abc import Sequence
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from synth2_lightning.testing import (
    TinyImageGenerator,
    TinyImageTokenizer,
    check_image_encoder,
    check_image_generator,
    check_image_tokenizer,
)
from synth2_lightning.types import Pixels, VQTokens


class LearningTokenizer(TinyImageTokenizer):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))


class ForgetfulTokenizer(TinyImageTokenizer):
    def encode_pixels(self, pixels: Pixels) -> Float[Tensor, "batch tokens dim"]:
        return super().encode_pixels(pixels) + 1


class TrustingTokenizer(TinyImageTokenizer):
    def embed_tokens(self, tokens: VQTokens) -> Float[Tensor, "batch tokens dim"]:
        return self.vectors[tokens.ids[..., 0]]


class WrongWidthTokenizer(TinyImageTokenizer):
    embed_dim = 7


@pytest.mark.parametrize(
    ("tokenizer", "law"),
    [
        (LearningTokenizer(), "frozen"),
        (WrongWidthTokenizer(), "shape"),
        (ForgetfulTokenizer(), "law: embed"),
        (TrustingTokenizer(), "foreign tokens must be refused"),
    ],
)
def test_a_broken_law_is_named(tokenizer: TinyImageTokenizer, law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check_image_tokenizer(tokenizer)


def test_the_encoder_check_alone_passes_what_only_tokenizers_must_keep() -> None:
    check_image_encoder(ForgetfulTokenizer())


class RowSeededGenerator(TinyImageGenerator):
    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> VQTokens:
        return super().generate(captions, [seed + row for row, seed in enumerate(seeds)])


class SeedlessGenerator(TinyImageGenerator):
    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> VQTokens:
        return super().generate(captions, [0] * len(captions))


class SmallCodebookGenerator(TinyImageGenerator):
    codebook_size = 2


class VagueGenerator(TinyImageGenerator):
    def provenance(self) -> dict[str, Any]:
        return {"levels": (1, 2)}


@pytest.mark.parametrize(
    ("generator", "law"),
    [
        (RowSeededGenerator(), "seeds: a picture must not depend on the batch"),
        (SeedlessGenerator(), "seeds: other seeds, other pictures"),
        (SmallCodebookGenerator(), "ids: .* leave the codebook"),
        (VagueGenerator(), "provenance: plain values"),
    ],
)
def test_a_broken_law_of_generators_is_named(generator: TinyImageGenerator, law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check_image_generator(generator)
