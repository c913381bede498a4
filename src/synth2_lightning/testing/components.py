"""Tiny components with random weights, for tests and examples."""

import hashlib
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from synth2_lightning.interfaces import (
    CaptionGenerator,
    ImageGenerator,
    ImageTextEncoder,
    ImageTokenizer,
    LanguageDecoder,
    PairScorer,
    Resampler,
    TextEncoder,
)
from synth2_lightning.nn.transfer import to_device
from synth2_lightning.types import (
    Completion,
    Condition,
    GenerationSettings,
    ImageTextBatch,
    Pixels,
    Prompt,
    SampleInfo,
    TokenLoss,
    VQTokens,
)

_CODEBOOK = "tiny-16:00000000"


def tiny_batch(num_images: int = 2, seed: int = 0) -> ImageTextBatch:
    """Return noise images of 8 by 8 pixels with captions that describe their brightness.

    Example:
        >>> len(tiny_batch(3))
        3
    """
    generator = torch.Generator().manual_seed(seed)
    brightness = torch.randint(0, 2, (num_images,), generator=generator)
    noise = torch.randint(0, 64, (num_images, 3, 8, 8), generator=generator)
    values = (noise + 160 * brightness[:, None, None, None]).to(torch.uint8)
    captions = tuple("a bright field" if bright else "a dark field" for bright in brightness.tolist())
    return ImageTextBatch(
        image=Pixels(values),
        captions=captions,
        samples=tuple(SampleInfo(f"tiny-{seed}-{index}", "tiny") for index in range(num_images)),
        references=tuple((caption, caption.replace("a ", "one ")) for caption in captions),
    )


class TinyImageTokenizer(ImageTokenizer):
    """Image tokenizer with four tokens per image: the mean brightness of each quadrant in sixteen steps.

    Example:
        >>> TinyImageTokenizer().tokenize(tiny_batch().image).ids.shape
        torch.Size([2, 4, 1])
    """

    name = "tiny"
    num_tokens, embed_dim, image_size = 4, 6, 8
    codebook, codebook_size, num_levels = _CODEBOOK, 16, 1

    def __init__(self) -> None:
        super().__init__()
        vectors = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
        self.register_buffer("vectors", vectors, persistent=False)

    vectors: Tensor

    def _tokenize(self, pixels: Pixels) -> VQTokens:
        """Quantize the mean brightness of each quadrant."""
        means = nn.functional.adaptive_avg_pool2d(pixels.values.float().mean(1, keepdim=True), 2)
        return VQTokens((means.flatten(1) / 16).long().clamp(0, 15).unsqueeze(-1), self.codebook)

    def encode_pixels(self, pixels: Pixels) -> Float[Tensor, "batch tokens dim"]:
        """Return the embeddings of the images' tokens."""
        return self.embed_tokens(self.tokenize(pixels))

    def embed_tokens(self, tokens: VQTokens) -> Float[Tensor, "batch tokens dim"]:
        """Embed codebook ids."""
        self.check_tokens(tokens)
        return self.vectors[tokens.ids[..., 0]]


class TinyImageGenerator(ImageGenerator):
    """Image generator that hashes caption and seed to four tokens of :class:`TinyImageTokenizer`.

    Args:
        salt: Part of the hash, in place of the arguments of a sampler.

    Example:
        >>> TinyImageGenerator().generate(["a dark field"], [7]).ids.shape
        torch.Size([1, 4, 1])
    """

    codebook_size = 16

    def __init__(self, salt: int = 0) -> None:
        super().__init__()
        self.salt = salt

    def generate(self, captions: Sequence[Condition], seeds: Sequence[int]) -> VQTokens:
        """Hash every caption, or tuple of captions, with its seed to tokens."""
        self.check_request(captions, seeds)
        joined = [caption if isinstance(caption, str) else "\n".join(caption) for caption in captions]
        texts = [f"{self.salt} {seed} {caption}" for caption, seed in zip(joined, seeds, strict=True)]
        digests = [hashlib.sha256(text.encode()).digest()[:4] for text in texts]
        return VQTokens(torch.tensor([[[byte % 16] for byte in digest] for digest in digests]), _CODEBOOK)

    def provenance(self) -> dict[str, Any]:
        """Return the codebook and the salt."""
        return {"codebook": _CODEBOOK, "sampler": {"salt": self.salt}}


class TinyCaptionGenerator(CaptionGenerator):
    """Caption generator that fills a template with the last message and the seed.

    Args:
        salt: Added to the seed, in place of the arguments of a sampler.

    Example:
        >>> from synth2_lightning.types import ChatMessage
        >>> TinyCaptionGenerator().generate([(ChatMessage("user", "dog"),)], [7])[0].text
        'An image of dog number 7.'
    """

    model_name = "tiny"

    def __init__(self, salt: int = 0) -> None:
        super().__init__()
        self.salt = salt

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Completion]:
        """Fill the template once per prompt."""
        if len(prompts) != len(seeds):
            raise ValueError(f"There are {len(prompts)} prompts and {len(seeds)} seeds; expected one seed per prompt.")
        texts = [
            f"An image of {prompt[-1].content} number {(seed + self.salt) % 1000}."
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return [Completion(text, "stop", num_prompt_tokens=1, num_tokens=len(text.split())) for text in texts]

    def provenance(self) -> dict[str, Any]:
        """Return the salt."""
        return {"salt": self.salt}


class TinyPairScorer(PairScorer):
    """Scorer of brightness: the mean id if the caption contains "bright", 15 minus the mean id otherwise.

    Example:
        >>> TinyPairScorer().score(VQTokens(torch.full((1, 4, 1), 9), _CODEBOOK), ["a bright field"])
        tensor([9.])
    """

    def score(self, tokens: VQTokens, captions: Sequence[str]) -> Float[Tensor, " batch"]:
        """Score each caption by the mean id of its image."""
        brightness = tokens.ids.float().mean((1, 2))
        is_bright = torch.tensor(["bright" in caption for caption in captions], device=brightness.device)
        return torch.where(is_bright, brightness, 15 - brightness)

    def provenance(self) -> dict[str, Any]:
        """Return the codebook."""
        return {"codebook": _CODEBOOK}


class TinyImageTextEncoder(ImageTextEncoder):
    """Dual encoder of brightness: embeds images by their mean, and texts by the words "bright" and "dark".

    Example:
        >>> encoder = TinyImageTextEncoder()
        >>> encoder.embed_images(Pixels(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)))
        tensor([[1., 0.]])
        >>> encoder.embed_texts(["a bright field", "a dark field", "a field"])
        tensor([[1.0000, 0.0000],
                [0.0000, 1.0000],
                [0.7071, 0.7071]])
    """

    def embed_images(self, pixels: Pixels) -> Float[Tensor, "batch dim"]:
        """Embed the mean brightness of each image."""
        brightness = pixels.values.float().mean((1, 2, 3)) / 255
        return normalize(torch.stack([brightness, 1 - brightness], 1), dim=1)

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Embed the presence of "bright" and "dark" in each text."""
        axes = [("dark" not in text, "bright" not in text) for text in texts]
        return normalize(torch.tensor(axes, dtype=torch.float).reshape(-1, 2), dim=1)

    def provenance(self) -> dict[str, Any]:
        """Return the name."""
        return {"model": "tiny"}


class TinyResampler(Resampler):
    """Resampler that projects the mean over tokens to four visual tokens.

    Example:
        >>> TinyResampler().build(6, 8)(torch.zeros(2, 9, 6)).shape
        torch.Size([2, 4, 8])
    """

    num_latents = 4

    def _build(self, input_dim: int, output_dim: int) -> None:
        self.projection = nn.Linear(input_dim, 4 * output_dim)

    def forward(self, embeddings: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch latents width"]:
        """Return four visual tokens per image."""
        projected: Tensor = self.projection(embeddings.mean(1))
        return projected.reshape(len(projected), 4, -1)


class TinyDecoder(LanguageDecoder):
    """Decoder with a vocabulary of five words and an independent distribution for each of four positions.

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
        visual: Float[Tensor, "batch latents width"],
        texts: Sequence[str],
        prompts: Sequence[str] | None = None,
    ) -> TokenLoss:
        """Negative log-likelihood of each word under the distribution of its position."""
        logits = self._logits(visual).log_softmax(-1)
        ids = [[self.words.index(word) for word in (*text.split(), "</s>")][:4] for text in texts]
        sums = [-logits[row, range(len(words)), words].sum() for row, words in enumerate(ids)]
        return TokenLoss(torch.stack(sums), torch.tensor([len(words) for words in ids]))

    def generate(
        self,
        visual: Float[Tensor, "batch latents width"],
        settings: GenerationSettings,
        prompts: Sequence[str] | None = None,
    ) -> list[str]:
        """Return the most probable word of each position."""
        best = self._logits(visual).argmax(-1)[:, : settings.max_new_tokens]
        return [" ".join(self.words[word] for word in row if word) for row in best.tolist()]

    def _logits(self, visual: Tensor) -> Tensor:
        logits: Tensor = self.head(visual.mean(1))
        return logits.reshape(len(logits), 4, -1)


class TinyTextEncoder(TextEncoder):
    """Text encoder with a fixed random embedding for each hash of a word.

    Example:
        >>> embeddings, mask = TinyTextEncoder().encode(["a bright field", "a field"])
        >>> embeddings.shape, mask.sum(1)
        (torch.Size([2, 3, 8]), tensor([3, 2]))
    """

    name = "tiny"
    embed_dim = 8
    vectors: Tensor

    def __init__(self) -> None:
        super().__init__()
        vectors = torch.randn(1009, self.embed_dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("vectors", vectors, persistent=False)

    def encode(self, texts: Sequence[str]) -> tuple[Float[Tensor, "batch length dim"], Bool[Tensor, "batch length"]]:
        """Embed each word by its hash."""
        for text in texts:
            if not text.strip():
                raise ValueError(f"The caption {text!r} has no word; expected at least one.")
        rows = [[crc32(word.encode()) % len(self.vectors) for word in text.split()] for text in texts]
        ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=-1)
        ids = to_device(ids, self.vectors.device)
        return self.vectors[ids], ids >= 0
