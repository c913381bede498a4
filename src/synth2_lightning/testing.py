"""Tiny parts and contract checks, for our tests and for those of people who write new parts.

The parts are real implementations of the interfaces, a few kilobytes wide; the checks hold any implementation
to the laws that the rest of the house relies on.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from synth2_lightning.interfaces import ImageEncoder, ImageGenerator, ImageTokenizer, LanguageDecoder, Resampler
from synth2_lightning.types import (
    GenerationSettings,
    ImageTextBatch,
    MixedImages,
    Pixels,
    SoftVQTokens,
    TokenLoss,
    VQTokens,
)

_CODEBOOK = "tiny-16:00000000"


def tiny_batch(num_pictures: int = 2, seed: int = 0) -> ImageTextBatch:
    """Make a batch of noise pictures (8 by 8 pixels) whose captions say how bright they are.

    Example:
        >>> len(tiny_batch(3))
        3
    """
    generator = torch.Generator().manual_seed(seed)
    brightness = torch.randint(0, 2, (num_pictures,), generator=generator)
    noise = torch.randint(0, 64, (num_pictures, 3, 8, 8), generator=generator)
    values = (noise + 160 * brightness[:, None, None, None]).to(torch.uint8)
    captions = tuple("a bright field" if bright else "a dark field" for bright in brightness.tolist())
    return ImageTextBatch(
        image=Pixels(values),
        captions=captions,
        keys=tuple(f"tiny-{seed}-{index}" for index in range(num_pictures)),
        sources=("tiny",) * num_pictures,
        references=tuple((caption, caption.replace("a ", "one ")) for caption in captions),
    )


class TinyImageTokenizer(ImageTokenizer):
    """Four tokens a picture: the mean brightness of each quarter, in sixteen steps.

    Example:
        >>> TinyImageTokenizer().tokenize(tiny_batch().image).ids.shape
        torch.Size([2, 4, 1])
    """

    name = "tiny"
    num_tokens, embed_dim, image_size = 4, 6, 8
    codebook, codebook_size, num_levels = _CODEBOOK, 16, 1

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(16, 6), persistent=False)
        self.load()

    vectors: Tensor

    def load(self) -> None:
        """Bring the codebook."""
        self.vectors.copy_(torch.randn(16, 6, generator=torch.Generator().manual_seed(0)))

    def tokenize(self, pixels: Pixels) -> VQTokens:
        """Measure the brightness of each quarter."""
        means = nn.functional.adaptive_avg_pool2d(pixels.values.float().mean(1, keepdim=True), 2)
        return VQTokens((means.flatten(1) / 16).long().clamp(0, 15).unsqueeze(-1), self.codebook)

    def encode_pixels(self, pixels: Pixels) -> Float[Tensor, "batch tokens dim"]:
        """Tokenize, then look up."""
        return self.embed_tokens(self.tokenize(pixels))

    def embed_tokens(self, tokens: VQTokens) -> Float[Tensor, "batch tokens dim"]:
        """Look ids up."""
        self.check_codebook(tokens.codebook)
        self.check_ids(tokens.ids)
        return self.vectors[tokens.ids[..., 0]]

    def embed_soft_tokens(self, tokens: SoftVQTokens) -> Float[Tensor, "batch tokens dim"]:
        """Take the expectation."""
        self.check_codebook(tokens.codebook)
        vectors = self.vectors[tokens.ids[..., 0, :]]
        return (vectors * tokens.probabilities[..., 0, :, None]).sum(-2)


class TinyImageGenerator(ImageGenerator):
    """Draws the four tokens of :class:`TinyImageTokenizer` out of the caption and the seed, which say nothing of them.

    Args:
        salt: Stands for the arguments of a sampler: another salt, other tokens.

    Example:
        >>> TinyImageGenerator().generate(["a dark field"], [7]).ids.shape
        torch.Size([1, 4, 1])
    """

    codebook_size = 16

    def __init__(self, salt: int = 0) -> None:
        super().__init__()
        self.salt = salt

    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> VQTokens:
        """Hash every caption with its seed."""
        texts = [f"{self.salt} {seed} {caption}" for caption, seed in zip(captions, seeds, strict=True)]
        digests = [hashlib.sha256(text.encode()).digest()[:4] for text in texts]
        return VQTokens(torch.tensor([[[byte % 16] for byte in digest] for digest in digests]), _CODEBOOK)

    def provenance(self) -> dict[str, Any]:
        """Give the codebook and the salt."""
        return {"codebook": _CODEBOOK, "sampler": {"salt": self.salt}}


class TinyResampler(Resampler):
    """A mean over tokens, projected to four visual tokens.

    Example:
        >>> TinyResampler(6, 8)(torch.zeros(2, 9, 6)).shape
        torch.Size([2, 4, 8])
    """

    num_queries = 4

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(input_dim, 4 * output_dim)

    def forward(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch queries width"]:
        """Resample."""
        projected: Tensor = self.projection(embeddings.mean(1))
        return projected.reshape(len(projected), 4, -1)


class TinyDecoder(LanguageDecoder):
    """Knows three words and their order; reads from the picture which of them to say.

    Example:
        >>> TinyDecoder().loss(torch.zeros(2, 4, 8), ["a dark field", "a bright field"]).counts
        tensor([4, 4])
    """

    embed_dim = 8
    words = ("</s>", "a", "bright", "dark", "field")

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 4 * len(self.words))

    def loss(
        self,
        visual: Float[Tensor, "batch queries width"],
        texts: Sequence[str],
        prompts: Sequence[str] | None = None,
    ) -> TokenLoss:
        """Score each word against the position's distribution."""
        logits = self._logits(visual).log_softmax(-1)
        ids = [[self.words.index(word) for word in (*text.split(), "</s>")][:4] for text in texts]
        sums = [-logits[row, range(len(words)), words].sum() for row, words in enumerate(ids)]
        return TokenLoss(torch.stack(sums), torch.tensor([len(words) for words in ids]))

    def generate(
        self,
        visual: Float[Tensor, "batch queries width"],
        settings: GenerationSettings,
        prompts: Sequence[str] | None = None,
    ) -> list[str]:
        """Say the likeliest word of each position."""
        best = self._logits(visual).argmax(-1)[:, : settings.max_new_tokens]
        return [" ".join(self.words[word] for word in row if word) for row in best.tolist()]

    def _logits(self, visual: Tensor) -> Tensor:
        logits: Tensor = self.head(visual.mean(1))
        return logits.reshape(len(logits), 4, -1)


def check_image_encoder(encoder: ImageEncoder, image_size: int | None = None) -> None:
    """Hold an encoder to the laws of :class:`ImageEncoder`: shapes, row order, frozen weights, determinism.

    Args:
        encoder: Constructed, not yet loaded.
        image_size: Side of the test pictures; by default the encoder's own.

    Raises:
        AssertionError: If a law is broken; the message names it.

    Example:
        >>> check_image_encoder(TinyImageTokenizer())
    """
    encoder.load()
    encoder.load()
    side = image_size or encoder.image_size
    values = torch.randint(0, 256, (3, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels = Pixels(values)
    with torch.no_grad():
        embeddings = encoder(pixels)
        again = encoder(MixedImages((Pixels(values[:1]), Pixels(values[1:]))))
    shape = (3, encoder.num_tokens, encoder.embed_dim)
    assert embeddings.shape == shape, f"shape: expected {shape}, got {tuple(embeddings.shape)}"
    assert torch.allclose(embeddings, again, atol=1e-4), "rows: parts of MixedImages must keep their order"
    assert not any(parameter.requires_grad for parameter in encoder.parameters()), "frozen: no parameter may learn"
    with torch.no_grad():
        encoder.train()
        assert torch.allclose(encoder(pixels), embeddings, atol=1e-5), "frozen: train() must not change the embeddings"


def check_image_tokenizer(tokenizer: ImageTokenizer, image_size: int | None = None, law: bool = True) -> None:
    """Hold a tokenizer to the laws of :class:`ImageTokenizer`, on top of :func:`check_image_encoder`.

    Args:
        tokenizer: Constructed, not yet loaded.
        image_size: Side of the test pictures; by default the tokenizer's own.
        law: Whether pixels embed as their own tokens; false for tokenizers told to keep continuous features.

    Raises:
        AssertionError: If a law is broken; the message names it.

    Example:
        >>> check_image_tokenizer(TinyImageTokenizer())
    """
    check_image_encoder(tokenizer, image_size)
    side = image_size or tokenizer.image_size
    values = torch.randint(0, 256, (2, 3, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    pixels = Pixels(values)
    with torch.no_grad():
        tokens = tokenizer.tokenize(pixels)
        shape = (2, tokenizer.num_tokens, tokenizer.num_levels)
        assert tokens.ids.shape == shape, f"shape: expected ids {shape}, got {tuple(tokens.ids.shape)}"
        assert tokens.codebook == tokenizer.codebook, "codebook: tokens must carry the tokenizer's fingerprint"
        if law:
            same = torch.allclose(tokenizer(tokens), tokenizer(pixels), atol=1e-4)
            assert same, "law: embed(tokenize(p)) == embed(p)"
        ids = tokens.ids[..., None]
        certain = SoftVQTokens(ids, torch.ones(ids.shape), tokens.codebook)
        assert torch.allclose(tokenizer(certain), tokenizer(tokens), atol=1e-4), "soft: certain codes are hard codes"
    try:
        tokenizer(VQTokens(tokens.ids, "other-1:0"))
    except ValueError:
        return
    raise AssertionError("codebook: foreign tokens must be refused")


def check_image_generator(generator: ImageGenerator) -> None:
    """Hold a generator to the laws of :class:`ImageGenerator`: one picture per caption, decided by caption and seed.

    Args:
        generator: Constructed, not yet loaded; makes :class:`VQTokens`.

    Raises:
        AssertionError: If a law is broken; the message names it.

    Example:
        >>> check_image_generator(TinyImageGenerator())
    """
    generator.load()
    provenance = generator.provenance()
    generator.load()
    assert generator.provenance() == json.loads(json.dumps(provenance)), "provenance: plain values, the same each time"
    captions, seeds = ["a dark field", "a bright field", "a dark field"], [3, 2**63 - 1, 5]
    with torch.no_grad():
        tokens = generator.generate(captions, seeds)
        alone = [generator.generate([caption], [seed]) for caption, seed in zip(captions, seeds, strict=True)]
    assert isinstance(tokens, VQTokens), f"kind: expected VQTokens, got {type(tokens).__name__}"
    assert len(tokens) == 3, f"shape: expected 3 pictures, got {len(tokens)}"
    low, high = int(tokens.ids.min()), int(tokens.ids.max())
    assert 0 <= low <= high < generator.codebook_size, f"ids: {low} to {high} leave the codebook"
    same = all(torch.equal(tokens.ids[row], one.ids[0]) for row, one in enumerate(alone) if isinstance(one, VQTokens))
    assert same, "seeds: a picture must not depend on the batch that it is made in"
    assert not torch.equal(tokens.ids[0], tokens.ids[2]), "seeds: other seeds, other pictures"
