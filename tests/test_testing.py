from collections.abc import Sequence

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


class NarrowGenerator(TinyImageGenerator):
    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> VQTokens:
        tokens = super().generate(captions, seeds)
        return VQTokens(tokens.ids[:, :3], tokens.codebook)


class OrderedGenerator(TinyImageGenerator):
    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> VQTokens:
        tokens = super().generate(captions, seeds)
        return VQTokens((tokens.ids + torch.arange(len(captions))[:, None, None]) % 16, tokens.codebook)


class CrowdedGenerator(TinyImageGenerator):
    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> VQTokens:
        tokens = super().generate(captions, seeds)
        return VQTokens((tokens.ids + len(captions)) % 16, tokens.codebook)


class SeedlessGenerator(TinyImageGenerator):
    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> VQTokens:
        return super().generate(captions, [0] * len(seeds))


class TrustingGenerator(TinyImageGenerator):
    def check_request(self, captions: Sequence[str], seeds: Sequence[int]) -> None:
        pass

    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> VQTokens:
        return super().generate(captions[: len(seeds)], seeds)


@pytest.mark.parametrize(
    ("generator", "law"),
    [
        (NarrowGenerator(), "shape"),
        (OrderedGenerator(), "order of a batch"),
        (CrowdedGenerator(), "size of a batch"),
        (SeedlessGenerator(), "other seeds"),
        (TrustingGenerator(), "captions without a seed must be refused"),
    ],
)
def test_a_broken_law_of_generators_is_named(generator: TinyImageGenerator, law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check_image_generator(generator, TinyImageTokenizer())


def test_a_generator_of_another_codebook_is_refused() -> None:
    encoder = TinyImageTokenizer()
    encoder.codebook = "other-16:00000000"
    with pytest.raises(ValueError, match="speak codebook 'tiny-16:00000000'"):
        check_image_generator(TinyImageGenerator(), encoder)
