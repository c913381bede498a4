"""Checks of the contracts of interfaces; call them from the tests of your own component."""

import json
from collections.abc import Sequence

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
from synth2_lightning.types import (
    MixedImages,
    Pixels,
    Prompt,
    VQTokens,
)


def check_image_encoder(encoder: ImageEncoder, image_size: int | None = None) -> None:
    """Hold an encoder to the laws of :class:`ImageEncoder`: shapes, row order, frozen weights, determinism.

    Args:
        encoder: Constructed, not yet loaded.
        image_size: Side of the test images; by default the encoder's own.

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
        image_size: Side of the test images; by default the tokenizer's own.
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
    learned = {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    if learned:
        encoder.encode(texts)[0].square().sum().backward()  # type: ignore[no-untyped-call]
        idle = [name for name, parameter in learned.items() if parameter.grad is None]
        encoder.zero_grad()
        assert not idle, f"learned: no gradient reaches {', '.join(idle)}, for which DDP would wait"
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
    content = images.ids
    turned = generator.generate(captions[::-1], seeds[::-1]).ids.flip(0)
    assert torch.allclose(turned, content, atol=1e-4), "seeds: the order of a batch must change nothing"
    alone = torch.cat([generator.generate([captions[row]], [seeds[row]]).ids for row in range(4)])
    assert torch.allclose(alone, content, atol=1e-4), "seeds: the size of a batch must change nothing"
    assert not torch.equal(content[1], content[3]), "seeds: other seeds must give other images of a caption"
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
        tokens: Two images or more.
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
