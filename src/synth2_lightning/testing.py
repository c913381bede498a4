"""Tiny parts and contract checks, for our tests and for those of people who write new parts.

The parts are real implementations of the interfaces, a few kilobytes wide; the checks hold any implementation
to the laws that the rest of the house relies on.
"""

import hashlib
import json
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
    ImageEncoder,
    ImageGenerator,
    ImageTextEncoder,
    ImageTokenizer,
    LanguageDecoder,
    PairScorer,
    Resampler,
    TextEncoder,
)
from synth2_lightning.types import (
    Completion,
    GenerationSettings,
    ImageEmbeddings,
    ImageTextBatch,
    MixedImages,
    Pixels,
    Prompt,
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
        self.check_request(captions, seeds)
        texts = [f"{self.salt} {seed} {caption}" for caption, seed in zip(captions, seeds, strict=True)]
        digests = [hashlib.sha256(text.encode()).digest()[:4] for text in texts]
        return VQTokens(torch.tensor([[[byte % 16] for byte in digest] for digest in digests]), _CODEBOOK)

    def provenance(self) -> dict[str, Any]:
        """Give the codebook and the salt."""
        return {"codebook": _CODEBOOK, "sampler": {"salt": self.salt}}


class TinyCaptionGenerator(CaptionGenerator):
    """Says that there is a picture of the last message, and numbers it by the seed.

    Args:
        salt: Stands for the arguments of a sampler: another salt, other answers.

    Example:
        >>> from synth2_lightning.types import ChatMessage
        >>> TinyCaptionGenerator().generate([(ChatMessage("user", "dog"),)], [7])[0].text
        'A picture of dog number 7.'
    """

    model_name = "tiny"

    def __init__(self, salt: int = 0) -> None:
        super().__init__()
        self.salt = salt

    def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Completion]:
        """Answer each prompt."""
        if len(prompts) != len(seeds):
            raise ValueError(f"There are {len(prompts)} prompts and {len(seeds)} seeds; expected one seed per prompt.")
        texts = [
            f"A picture of {prompt[-1].content} number {(seed + self.salt) % 1000}."
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return [Completion(text, "stop", num_prompt_tokens=1, num_tokens=len(text.split())) for text in texts]

    def provenance(self) -> dict[str, Any]:
        """Give the salt."""
        return {"salt": self.salt}


class TinyPairScorer(PairScorer):
    """Takes captions at their word: the more so the brighter a picture that is called bright, or the darker another.

    Example:
        >>> TinyPairScorer().score(VQTokens(torch.full((1, 4, 1), 9), _CODEBOOK), ["a bright field"])
        tensor([9.])
    """

    def score(self, tokens: VQTokens, captions: Sequence[str]) -> Float[Tensor, " batch"]:
        """Compare the mean of the ids with the caption."""
        brightness = tokens.ids.float().mean((1, 2))
        is_bright = torch.tensor(["bright" in caption for caption in captions], device=brightness.device)
        return torch.where(is_bright, brightness, 15 - brightness)

    def provenance(self) -> dict[str, Any]:
        """Give the codebook."""
        return {"codebook": _CODEBOOK}


class TinyImageTextEncoder(ImageTextEncoder):
    """Knows how bright a picture is, and whether a text speaks of something bright, something dark, or neither.

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
        """Take the mean over a picture."""
        brightness = pixels.values.float().mean((1, 2, 3)) / 255
        return normalize(torch.stack([brightness, 1 - brightness], 1), dim=1)

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
        """Look for two words."""
        axes = [("dark" not in text, "bright" not in text) for text in texts]
        return normalize(torch.tensor(axes, dtype=torch.float).reshape(-1, 2), dim=1)

    def provenance(self) -> dict[str, Any]:
        """Give the name."""
        return {"model": "tiny"}


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


class TinyTextEncoder(TextEncoder):
    """Looks each word's vector up in a table of noise, where the word's hash says.

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
        """Look words up."""
        for text in texts:
            if not text.strip():
                raise ValueError(f"The caption {text!r} has no word; expected at least one.")
        rows = [[crc32(word.encode()) % len(self.vectors) for word in text.split()] for text in texts]
        ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=-1)
        ids = ids.to(self.vectors.device)
        return self.vectors[ids], ids >= 0


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


def check_text_encoder(encoder: TextEncoder, atol: float = 1e-5) -> None:
    """Hold an encoder to the laws of :class:`TextEncoder`: shapes, independence of the batch, blanks, what learns.

    Args:
        encoder: Constructed, not yet loaded.
        atol: How far embeddings of one text may differ from batch to batch; half precision needs more.

    Raises:
        AssertionError: If a law is broken; the message names it.

    Example:
        >>> check_text_encoder(TinyTextEncoder())
    """
    encoder.load()
    loaded = list(encoder.parameters())
    encoder.load()
    assert list(map(id, encoder.parameters())) == list(map(id, loaded)), "load: the second call must do nothing"
    encoder.eval()
    texts = ["a red circle", "two small green triangles and a blue square", "a circle"]
    with torch.no_grad():
        embeddings, mask = encoder.encode(texts)
        shape = (3, mask.shape[1], encoder.embed_dim)
        assert embeddings.shape == shape, f"shape: expected {shape}, got {tuple(embeddings.shape)}"
        assert mask.any(1).all(), "mask: each text has a real token"
        rows = [row[real] for row, real in zip(embeddings, mask, strict=True)]
        alone = [_real_tokens(encoder, [text])[0] for text in texts]
        turned = _real_tokens(encoder, texts[::-1])[::-1]
    assert _all_close(alone, rows, atol), "padding: a text must embed alone as beside longer ones"
    assert _all_close(turned, rows, atol), "order: the order of a batch must change no embeddings"
    assert not torch.allclose(rows[0].mean(0), rows[1].mean(0), atol=atol), "texts: they must embed differently"
    _check_what_learns(encoder, texts, atol)
    for blank in ("", " \n"):
        message = ""
        try:
            encoder.encode([*texts, blank])
        except ValueError as error:
            message = str(error)
        assert repr(blank) in message, f"blank: {blank!r} must be refused by a ValueError that shows it"


def _check_what_learns(encoder: TextEncoder, texts: list[str], atol: float) -> None:
    learnt = {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    if learnt:
        encoder.encode(texts)[0].square().sum().backward()  # type: ignore[no-untyped-call]
        idle = [name for name, parameter in learnt.items() if parameter.grad is None]
        encoder.zero_grad()
        assert not idle, f"learnt: no gradient reaches {', '.join(idle)}, for which DDP would wait"
        return
    before = _real_tokens(encoder, texts)
    assert not any(tokens.requires_grad for tokens in before), "frozen: no gradient may be kept"
    encoder.train()
    after = _real_tokens(encoder, texts)
    assert _all_close(after, before, atol), "frozen: train() must not change the embeddings"


def _real_tokens(encoder: TextEncoder, texts: list[str]) -> list[Tensor]:
    embeddings, mask = encoder.encode(texts)
    return [row[real] for row, real in zip(embeddings, mask, strict=True)]


def _all_close(some: list[Tensor], others: list[Tensor], atol: float) -> bool:
    pairs = zip(some, others, strict=True)
    return all(a.shape == b.shape and torch.allclose(a, b, atol=atol, rtol=0) for a, b in pairs)


def check_image_generator(generator: ImageGenerator, encoder: ImageEncoder) -> None:
    """Hold a generator to the laws of :class:`ImageGenerator`.

    Args:
        generator: Constructed, not yet loaded.
        encoder: The encoder of the VLM that shall train on what is generated; not yet loaded.

    Raises:
        AssertionError: If a law is broken; the message names it.
        ValueError: If the encoder refuses what is generated: another codebook, or ids that are out of its range.

    Example:
        >>> check_image_generator(TinyImageGenerator(), TinyImageTokenizer())
    """
    for part in (generator, encoder):
        part.load()
    provenance = generator.provenance()
    generator.load()
    assert generator.provenance() == json.loads(json.dumps(provenance)), "provenance: plain values, the same each time"
    captions = ["a bright field", "a dark field", "a field", "a dark field"]
    seeds = [0, 1, 2, 3]
    images = generator.generate(captions, seeds)
    with torch.no_grad():
        embeddings = encoder(images)
    shape = (4, encoder.num_tokens, encoder.embed_dim)
    assert embeddings.shape == shape, f"shape: expected embeddings {shape}, got {tuple(embeddings.shape)}"
    content = _content(images)
    turned = _content(generator.generate(captions[::-1], seeds[::-1])).flip(0)
    assert torch.allclose(turned, content, atol=1e-4), "seeds: the order of a batch must change nothing"
    alone = torch.cat([_content(generator.generate([captions[row]], [seeds[row]])) for row in range(4)])
    assert torch.allclose(alone, content, atol=1e-4), "seeds: the size of a batch must change nothing"
    assert not torch.equal(content[1], content[3]), "seeds: other seeds must give other pictures of a caption"
    try:
        generator.generate(captions, seeds[:2])
    except ValueError:
        return
    raise AssertionError("seeds: captions without a seed must be refused")


def check_caption_generator(generator: CaptionGenerator, prompts: Sequence[Prompt]) -> None:
    """Hold a caption generator to the laws of :class:`CaptionGenerator`.

    Args:
        generator: Constructed, not yet loaded; one that samples.
        prompts: Three or more different ones.

    Raises:
        AssertionError: If a law is broken; the message names it.

    Example:
        >>> from synth2_lightning.types import ChatMessage
        >>> words = ("dog", "espresso maker", "oak")
        >>> check_caption_generator(TinyCaptionGenerator(), [(ChatMessage("user", word),) for word in words])
    """
    generator.load()
    provenance = generator.provenance()
    generator.load()
    assert generator.provenance() == json.loads(json.dumps(provenance)), "provenance: plain values, the same each time"
    seeds = list(range(len(prompts)))
    answers = generator.generate(prompts, seeds)
    assert len(answers) == len(prompts), "answers: expected one per prompt"
    assert all(answer.num_tokens >= 0 and answer.finish_reason for answer in answers), "answers: counts and reasons"
    turned = generator.generate(prompts[::-1], seeds[::-1])[::-1]
    assert turned == answers, "seeds: the order of a batch must change nothing"
    alone = [generator.generate([prompt], [seed])[0] for prompt, seed in zip(prompts, seeds, strict=True)]
    assert alone == answers, "seeds: the size of a batch must change nothing"
    other = generator.generate(prompts, [seed + 100 for seed in seeds])
    assert [answer.text for answer in other] != [answer.text for answer in answers], "seeds: others, other answers"
    try:
        generator.generate(prompts, seeds[:-1])
    except ValueError:
        return
    raise AssertionError("seeds: prompts without a seed must be refused")


def check_pair_scorer(scorer: PairScorer, tokens: VQTokens, captions: Sequence[str], atol: float = 1e-4) -> None:
    """Hold a scorer to the laws of :class:`PairScorer`: one score per pair, whatever else is in the batch.

    Args:
        scorer: Constructed, not yet loaded.
        tokens: Two pictures or more.
        captions: One each, not all of the same length.
        atol: How far the scores of one pair may differ from batch to batch; half precision needs more.

    Raises:
        AssertionError: If a law is broken; the message names it.

    Example:
        >>> tokens = TinyImageTokenizer().tokenize(tiny_batch(3).image)
        >>> check_pair_scorer(TinyPairScorer(), tokens, ["a bright field", "a dark field", "dark"])
    """
    scorer.load()
    provenance = scorer.provenance()
    scorer.load()
    assert scorer.provenance() == json.loads(json.dumps(provenance)), "provenance: plain values, the same each time"
    scores = scorer.score(tokens, captions)
    assert scores.shape == (len(captions),), f"shape: expected ({len(captions)},), got {tuple(scores.shape)}"
    assert scores.isfinite().all(), "scores: they must be finite numbers"
    turned = scorer.score(VQTokens(tokens.ids.flip(0), tokens.codebook), captions[::-1]).flip(0)
    assert torch.allclose(turned, scores, atol=atol), "batch: its order must change no score"
    alone = [
        scorer.score(VQTokens(ids[None], tokens.codebook), [text])
        for ids, text in zip(tokens.ids, captions, strict=True)
    ]
    assert torch.allclose(torch.cat(alone), scores, atol=atol), "batch: its size must change no score"


def _content(images: VQTokens | SoftVQTokens | ImageEmbeddings) -> Tensor:
    return images.values if isinstance(images, ImageEmbeddings) else images.ids
