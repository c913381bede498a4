from collections.abc import Sequence

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from synth2_lightning.testing import (
    TinyImageGenerator,
    TinyImageTokenizer,
    TinyPairScorer,
    TinyTextEncoder,
    check_image_encoder,
    check_image_generator,
    check_image_tokenizer,
    check_pair_scorer,
    check_text_encoder,
)
from synth2_lightning.types import Condition, Pixels, VQTokens


class UnfrozenTokenizer(TinyImageTokenizer):
    def load(self) -> None:
        super().load()
        self.gain = nn.Parameter(torch.ones(1))  # after the base class froze its parameters


class UnquantizedTokenizer(TinyImageTokenizer):
    def encode_pixels(self, pixels: Pixels) -> Float[Tensor, "batch tokens dim"]:
        return super().encode_pixels(pixels) + 1


class UncheckedTokenizer(TinyImageTokenizer):
    def embed_tokens(self, tokens: VQTokens) -> Float[Tensor, "batch tokens dim"]:
        return self.vectors[tokens.ids[..., 0]]


class WrongWidthTokenizer(TinyImageTokenizer):
    embed_dim = 7


@pytest.mark.parametrize(
    ("tokenizer", "rule"),
    [
        (UnfrozenTokenizer(), "frozen"),
        (WrongWidthTokenizer(), "shape"),
        (UnquantizedTokenizer(), "quantized: "),
        (UncheckedTokenizer(), "codebook: .*another codebook"),
    ],
)
def test_a_violated_contract_of_tokenizers_is_named(tokenizer: TinyImageTokenizer, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_image_tokenizer(tokenizer)


def test_the_encoder_check_alone_passes_what_only_tokenizers_must_keep() -> None:
    check_image_encoder(UnquantizedTokenizer())


Encoded = tuple[Tensor, Tensor]


class UnfrozenTextEncoder(TinyTextEncoder):
    def load(self) -> None:  # not in _load, which runs once
        self.gain = nn.Parameter(torch.ones(1))


class WideTextEncoder(TinyTextEncoder):
    def encode(self, texts: Sequence[str]) -> Encoded:
        embeddings, mask = super().encode(texts)
        return embeddings.repeat(1, 1, 2), mask


class EmptyMaskTextEncoder(TinyTextEncoder):
    def encode(self, texts: Sequence[str]) -> Encoded:
        embeddings, mask = super().encode(texts)
        return embeddings, mask & False


class LeakingTextEncoder(TinyTextEncoder):
    def encode(self, texts: Sequence[str]) -> Encoded:
        embeddings, mask = super().encode(texts)
        return embeddings + embeddings.mean(1, keepdim=True), mask


class LengthTextEncoder(TinyTextEncoder):
    """Correct if the first text is the longest, wrong if the last one is."""

    def encode(self, texts: Sequence[str]) -> Encoded:
        embeddings, mask = super().encode(texts)
        return embeddings + (len(texts[0]) < len(texts[-1])), mask


class ConstantTextEncoder(TinyTextEncoder):
    def encode(self, texts: Sequence[str]) -> Encoded:
        embeddings, mask = super().encode(texts)
        return embeddings * 0, mask


class UnusedWeightTextEncoder(TinyTextEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.pooler = nn.Parameter(torch.ones(1))

    def encode(self, texts: Sequence[str]) -> Encoded:
        embeddings, mask = super().encode(texts)
        return embeddings * self.gain, mask


class NoisyTextEncoder(TinyTextEncoder):
    def encode(self, texts: Sequence[str]) -> Encoded:
        embeddings, mask = super().encode(texts)
        return nn.functional.dropout(embeddings, training=self.training), mask


class BlankTextEncoder(TinyTextEncoder):
    def encode(self, texts: Sequence[str]) -> Encoded:
        return super().encode([text.strip() or "nothing" for text in texts])


@pytest.mark.parametrize(
    ("encoder", "rule"),
    [
        (UnfrozenTextEncoder(), "load: "),
        (WideTextEncoder(), r"shape: .*\(3, 8, 8\).*\(3, 8, 16\)"),
        (EmptyMaskTextEncoder(), "mask: .*each text"),
        (LeakingTextEncoder(), "padding: "),
        (LengthTextEncoder(), "order: "),
        (ConstantTextEncoder(), "texts: "),
        (UnusedWeightTextEncoder(), r"gradient.*pooler"),
        (NoisyTextEncoder(), "frozen: train"),
        (BlankTextEncoder(), "blank: .*''"),
    ],
)
def test_a_violated_contract_of_text_encoders_is_named(encoder: TinyTextEncoder, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_text_encoder(encoder)


def test_the_tiny_text_encoder_is_the_same_in_every_process() -> None:
    check_text_encoder(TinyTextEncoder())
    embeddings, mask = TinyTextEncoder().encode(["a dog", "a"])
    assert mask.tolist() == [[True, True], [True, False]]
    assert torch.equal(embeddings[0, 0], embeddings[1, 0])
    assert not torch.equal(embeddings[0, 0], embeddings[0, 1])
    assert torch.equal(embeddings[0, 0], TinyTextEncoder().vectors[0xE8B7BE43 % 1009])  # the word's CRC-32


class NarrowGenerator(TinyImageGenerator):
    def generate(self, captions: Sequence[Condition], seeds: Sequence[int]) -> VQTokens:
        tokens = super().generate(captions, seeds)
        return VQTokens(tokens.ids[:, :3], tokens.codebook)


class BatchOrderGenerator(TinyImageGenerator):
    def generate(self, captions: Sequence[Condition], seeds: Sequence[int]) -> VQTokens:
        tokens = super().generate(captions, seeds)
        return VQTokens((tokens.ids + torch.arange(len(captions))[:, None, None]) % 16, tokens.codebook)


class BatchSizeGenerator(TinyImageGenerator):
    def generate(self, captions: Sequence[Condition], seeds: Sequence[int]) -> VQTokens:
        tokens = super().generate(captions, seeds)
        return VQTokens((tokens.ids + len(captions)) % 16, tokens.codebook)


class SeedlessGenerator(TinyImageGenerator):
    def generate(self, captions: Sequence[Condition], seeds: Sequence[int]) -> VQTokens:
        return super().generate(captions, [0] * len(seeds))


class LiteralGenerator(TinyImageGenerator):
    def generate(self, captions: Sequence[Condition], seeds: Sequence[int]) -> VQTokens:
        return super().generate([str(caption) for caption in captions], seeds)


class UncheckedGenerator(TinyImageGenerator):
    def check_request(self, captions: Sequence[Condition], seeds: Sequence[int]) -> None:
        pass

    def generate(self, captions: Sequence[Condition], seeds: Sequence[int]) -> VQTokens:
        return super().generate(captions[: len(seeds)], seeds)


@pytest.mark.parametrize(
    ("generator", "rule"),
    [
        (NarrowGenerator(), "shape"),
        (BatchOrderGenerator(), "order of a batch"),
        (BatchSizeGenerator(), "size of a batch"),
        (SeedlessGenerator(), "other seeds"),
        (LiteralGenerator(), "tuple of one caption"),
        (UncheckedGenerator(), "without a seed"),
    ],
)
def test_a_violated_contract_of_generators_is_named(generator: TinyImageGenerator, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_image_generator(generator, TinyImageTokenizer())


class BatchSizeScorer(TinyPairScorer):
    def score(self, tokens: VQTokens, captions: Sequence[str]) -> Float[Tensor, " batch"]:
        return super().score(tokens, captions) / len(captions)


class BatchOrderScorer(TinyPairScorer):
    def score(self, tokens: VQTokens, captions: Sequence[str]) -> Float[Tensor, " batch"]:
        return super().score(tokens, captions) + torch.arange(len(captions))


class InfiniteScorer(TinyPairScorer):
    def score(self, tokens: VQTokens, captions: Sequence[str]) -> Float[Tensor, " batch"]:
        return super().score(tokens, captions) * torch.inf


@pytest.mark.parametrize(
    ("scorer", "rule"),
    [
        (BatchOrderScorer(), "batch: .*order"),
        (BatchSizeScorer(), "batch: .*size"),
        (InfiniteScorer(), "finite numbers"),
    ],
)
def test_a_violated_contract_of_scorers_is_named(scorer: TinyPairScorer, rule: str) -> None:
    tokens = VQTokens(torch.tensor([3, 9])[:, None, None].expand(2, 4, 1), TinyImageTokenizer.codebook)
    with pytest.raises(AssertionError, match=rule):
        check_pair_scorer(scorer, tokens, ["a bright field", "dark"])


def test_a_generator_of_another_codebook_is_refused() -> None:
    encoder = TinyImageTokenizer()
    encoder.codebook = "other-16:00000000"
    with pytest.raises(ValueError, match=r"codebook.*'tiny-16:00000000'"):
        check_image_generator(TinyImageGenerator(), encoder)
