"""Contract checks of the interfaces, for the tests of your own components.

Components are given constructed, not yet loaded. A violation raises an ``AssertionError`` that names the rule.
"""

import json
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from synth2_lightning.interfaces import (
    CaptionGenerator,
    ImageEncoder,
    ImageGenerator,
    ImageTokenizer,
    PairScorer,
    TextEncoder,
)
from synth2_lightning.types import MixedImages, Pixels, Prompt, VQTokens


def check_image_encoder(encoder: ImageEncoder, image_size: int | None = None) -> None:
    """Check the contract of :class:`ImageEncoder`: shapes, row order, frozen weights, determinism.

    Args:
        encoder: The encoder.
        image_size: Side of the test images; by default the encoder's own.

    Example:
        >>> from synth2_lightning.testing import TinyImageTokenizer
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
    assert not any(parameter.requires_grad for parameter in encoder.parameters()), "frozen: expected frozen parameters"
    with torch.no_grad():
        encoder.train()
        assert torch.allclose(encoder(pixels), embeddings, atol=1e-5), "frozen: train() must not change the embeddings"


def check_image_tokenizer(
    tokenizer: ImageTokenizer, image_size: int | None = None, quantizes_pixels: bool = True
) -> None:
    """Check the contract of :class:`ImageTokenizer`, including :func:`check_image_encoder`.

    Args:
        tokenizer: The tokenizer.
        image_size: Side of the test images; by default the tokenizer's own.
        quantizes_pixels: Whether the embeddings of pixels are those of their tokens; False if the tokenizer returns
            continuous features.

    Example:
        >>> from synth2_lightning.testing import TinyImageTokenizer
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
        if quantizes_pixels:
            same = torch.allclose(tokenizer(tokens), tokenizer(pixels), atol=1e-4)
            assert same, "quantized: expected embed(tokenize(p)) == embed(p)"
    other = VQTokens(tokens.ids, "other-1:0")
    _check_raises(lambda: tokenizer(other), "codebook: expected a ValueError for tokens of another codebook")


def check_text_encoder(encoder: TextEncoder, atol: float = 1e-5) -> None:
    """Check the contract of :class:`TextEncoder`: shapes, independence of the batch, blank texts, trainable weights.

    Args:
        encoder: The encoder.
        atol: Tolerance between embeddings of one text in different batches; half precision needs more.

    Example:
        >>> from synth2_lightning.testing import TinyTextEncoder
        >>> check_text_encoder(TinyTextEncoder())
    """
    encoder.load()
    loaded = list(encoder.parameters())
    encoder.load()
    assert list(map(id, encoder.parameters())) == list(map(id, loaded)), "load: the second call must have no effect"
    encoder.eval()
    texts = ["a red circle", "two small green triangles and a blue square", "a circle"]
    with torch.no_grad():
        embeddings, mask = encoder.encode(texts)
        shape = (3, mask.shape[1], encoder.embed_dim)
        assert embeddings.shape == shape, f"shape: expected {shape}, got {tuple(embeddings.shape)}"
        assert mask.any(1).all(), "mask: expected a real token in each text"
        rows = [row[real] for row, real in zip(embeddings, mask, strict=True)]
        alone = [_real_tokens(encoder, [text])[0] for text in texts]
        reversed_rows = _real_tokens(encoder, texts[::-1])[::-1]
    assert _all_close(alone, rows, atol), "padding: embeddings must not depend on longer texts in the batch"
    assert _all_close(reversed_rows, rows, atol), "order: embeddings must not depend on the order of the batch"
    assert not torch.allclose(rows[0].mean(0), rows[1].mean(0), atol=atol), "texts: expected different embeddings"
    _check_gradients(encoder, texts, atol)
    for blank in ("", " \n"):
        message = ""
        try:
            encoder.encode([*texts, blank])
        except ValueError as error:
            message = str(error)
        assert repr(blank) in message, f"blank: expected a ValueError with {blank!r} in its message"


def _check_provenance(component: CaptionGenerator | ImageGenerator | PairScorer) -> None:
    component.load()
    provenance = component.provenance()
    component.load()
    assert component.provenance() == json.loads(json.dumps(provenance)), "provenance: expected equal JSON values"


def _check_raises(call: Callable[[], object], rule: str) -> None:
    try:
        call()
    except ValueError:
        return
    raise AssertionError(rule)


def _check_gradients(encoder: TextEncoder, texts: list[str], atol: float) -> None:
    trainable = {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    if trainable:
        encoder.encode(texts)[0].square().sum().backward()
        unused = [name for name, parameter in trainable.items() if parameter.grad is None]
        encoder.zero_grad()
        assert not unused, f"trainable: no gradient reaches {', '.join(unused)}; DDP would raise on unused parameters"
        return
    before = _real_tokens(encoder, texts)
    assert not any(tokens.requires_grad for tokens in before), "frozen: embeddings must not require gradients"
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
    """Check the contract of :class:`ImageGenerator`.

    Args:
        generator: The generator.
        encoder: Encoder of the VLM that trains on the generated tokens.

    Raises:
        ValueError: If the generated ids belong to another codebook than the encoder's, or are out of its range.

    Example:
        >>> from synth2_lightning.testing import TinyImageGenerator, TinyImageTokenizer
        >>> check_image_generator(TinyImageGenerator(), TinyImageTokenizer())
    """
    _check_provenance(generator)
    encoder.load()
    captions = ["a bright field", "a dark field", "a field", "a dark field"]
    seeds = [0, 1, 2, 3]
    images = generator.generate(captions, seeds)
    with torch.no_grad():
        embeddings = encoder(images)
    shape = (4, encoder.num_tokens, encoder.embed_dim)
    assert embeddings.shape == shape, f"shape: expected embeddings {shape}, got {tuple(embeddings.shape)}"
    ids = images.ids
    reversed_ids = generator.generate(captions[::-1], seeds[::-1]).ids.flip(0)
    assert torch.allclose(reversed_ids, ids, atol=1e-4), "seeds: tokens must not depend on the order of a batch"
    alone = torch.cat([generator.generate([captions[row]], [seeds[row]]).ids for row in range(4)])
    assert torch.allclose(alone, ids, atol=1e-4), "seeds: tokens must not depend on the size of a batch"
    assert not torch.equal(ids[1], ids[3]), "seeds: expected other images of a caption with other seeds"
    tuples = generator.generate([(caption,) for caption in captions], seeds).ids
    assert torch.allclose(tuples, ids, atol=1e-4), "captions: a tuple of one caption must give the caption's image"
    rule = "seeds: expected a ValueError for captions without a seed"
    _check_raises(lambda: generator.generate(captions, seeds[:2]), rule)


def check_caption_generator(generator: CaptionGenerator, prompts: Sequence[Prompt]) -> None:
    """Check the contract of :class:`CaptionGenerator`.

    Args:
        generator: It samples.
        prompts: Three or more different ones.

    Example:
        >>> from synth2_lightning.testing import TinyCaptionGenerator
        >>> from synth2_lightning.types import ChatMessage
        >>> words = ("dog", "espresso maker", "oak")
        >>> check_caption_generator(TinyCaptionGenerator(), [(ChatMessage("user", word),) for word in words])
    """
    _check_provenance(generator)
    seeds = list(range(len(prompts)))
    completions = generator.generate(prompts, seeds)
    assert len(completions) == len(prompts), "completions: expected one per prompt"
    assert all(one.num_tokens >= 0 and one.finish_reason for one in completions), "completions: expected finish reasons"
    reversed_completions = generator.generate(prompts[::-1], seeds[::-1])[::-1]
    assert reversed_completions == completions, "seeds: completions must not depend on the order of a batch"
    alone = [generator.generate([prompt], [seed])[0] for prompt, seed in zip(prompts, seeds, strict=True)]
    assert alone == completions, "seeds: completions must not depend on the size of a batch"
    reseeded = generator.generate(prompts, [seed + 100 for seed in seeds])
    assert [one.text for one in reseeded] != [one.text for one in completions], "seeds: expected other texts"
    rule = "seeds: expected a ValueError for prompts without a seed"
    _check_raises(lambda: generator.generate(prompts, seeds[:-1]), rule)


def check_pair_scorer(scorer: PairScorer, tokens: VQTokens, captions: Sequence[str], atol: float = 1e-4) -> None:
    """Check the contract of :class:`PairScorer`: one score per pair, independent of the rest of the batch.

    Args:
        scorer: The scorer.
        tokens: Two images or more.
        captions: One per image, of different lengths.
        atol: Tolerance between scores of one pair in different batches; half precision needs more.

    Example:
        >>> from synth2_lightning.testing import TinyImageTokenizer, TinyPairScorer, tiny_batch
        >>> tokens = TinyImageTokenizer().tokenize(tiny_batch(3).image)
        >>> check_pair_scorer(TinyPairScorer(), tokens, ["a bright field", "a dark field", "dark"])
    """
    _check_provenance(scorer)
    scores = scorer.score(tokens, captions)
    assert scores.shape == (len(captions),), f"shape: expected ({len(captions)},), got {tuple(scores.shape)}"
    assert scores.isfinite().all(), "scores: expected finite numbers"
    reversed_scores = scorer.score(VQTokens(tokens.ids.flip(0), tokens.codebook), captions[::-1]).flip(0)
    assert torch.allclose(reversed_scores, scores, atol=atol), "batch: scores must not depend on its order"
    alone = [
        scorer.score(VQTokens(ids[None], tokens.codebook), [text])
        for ids, text in zip(tokens.ids, captions, strict=True)
    ]
    assert torch.allclose(torch.cat(alone), scores, atol=atol), "batch: scores must not depend on its size"
