import pickle
from copy import deepcopy

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from synth2_lightning.interfaces import ImageEncoder, Loadable
from synth2_lightning.testing import (
    TinyImageGenerator,
    TinyImageTokenizer,
    check_image_encoder,
    check_image_generator,
    check_image_tokenizer,
    tiny_batch,
)
from synth2_lightning.types import MixedImages, Pixels, VQTokens


class PlainEncoder(ImageEncoder):
    name, num_tokens, embed_dim, image_size = "plain", 1, 3, 8

    def encode_pixels(self, pixels: Pixels) -> Float[Tensor, "batch tokens dim"]:
        return pixels.values.float().mean((2, 3)).unsqueeze(1)


class Index(Loadable):
    """Counts its reads; the first read fails if ``fails`` is set."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.num_reads = 0

    def _load(self) -> None:
        self.num_reads += 1
        if self.fails:
            self.fails = False
            raise OSError("not yet")


class DropoutEncoder(PlainEncoder):
    def _load(self) -> None:
        self.gain = nn.Parameter(torch.ones(3))
        self.dropout = nn.Dropout(0.5)

    def encode_pixels(self, pixels: Pixels) -> Float[Tensor, "batch tokens dim"]:
        embeddings: Tensor = self.dropout(super().encode_pixels(pixels) * self.gain)
        return embeddings


def test_load_reads_once_and_copies_remember_it() -> None:
    index = Index()
    copies = [deepcopy(index), pickle.loads(pickle.dumps(index))]
    index.load()
    copies += [deepcopy(index), pickle.loads(pickle.dumps(index))]
    for each in (index, *copies):
        each.load()
        assert each.num_reads == 1


def test_load_is_repeated_after_a_failure() -> None:
    index = Index(fails=True)
    with pytest.raises(OSError, match="not yet"):
        index.load()
    index.load()
    index.load()
    assert index.num_reads == 2


def test_what_an_encoder_loads_is_frozen() -> None:
    check_image_encoder(DropoutEncoder())
    encoder = DropoutEncoder()
    encoder.load()
    encoder.train().requires_grad_()
    assert not any(module.training for module in encoder.modules())
    assert not encoder.gain.requires_grad


def test_tiny_parts_keep_the_contracts() -> None:
    check_image_tokenizer(TinyImageTokenizer())
    check_image_encoder(PlainEncoder())
    check_image_generator(TinyImageGenerator(), TinyImageTokenizer())


def test_rows_of_mixed_images_stay_in_order() -> None:
    tokenizer, pixels = TinyImageTokenizer(), tiny_batch(4).image
    assert isinstance(pixels, Pixels)
    tokens = tokenizer.tokenize(pixels)
    middle = VQTokens(tokens.ids[1:3], tokens.codebook)
    mixed = MixedImages((Pixels(pixels.values[:1]), middle, Pixels(pixels.values[3:])))
    assert torch.equal(tokenizer(mixed), tokenizer(pixels))


def test_an_encoder_without_codebook_refuses_tokens() -> None:
    ids = torch.zeros(1, 1, 1, dtype=torch.long)
    with pytest.raises(TypeError, match=r"'plain'.*'vqgan-8:ab'"):
        PlainEncoder()(VQTokens(ids, "vqgan-8:ab"))


def test_foreign_codebooks_and_ids_outside_the_codebook_are_refused() -> None:
    tokenizer = TinyImageTokenizer()
    ids = torch.zeros(1, 4, 1, dtype=torch.long)
    with pytest.raises(ValueError, match=r"'other:1'.*'tiny-16:00000000'"):
        tokenizer(VQTokens(ids, "other:1"))
    with pytest.raises(ValueError, match=r"0 to 16\b.*0 to 15\b"):
        tokenizer(VQTokens(ids + torch.tensor([0, 0, 0, 16])[:, None], tokenizer.codebook))


def test_a_tokenizer_without_decoder_raises() -> None:
    with pytest.raises(TypeError, match="no decoder"):
        TinyImageTokenizer().detokenize(VQTokens(torch.zeros(1, 4, 1, dtype=torch.long), "tiny-16:00000000"))


def test_captions_that_are_empty_or_have_no_seed_are_refused() -> None:
    generator = TinyImageGenerator()
    with pytest.raises(ValueError, match=r"2 captions.*1 seeds?\b"):
        generator.generate(["a field", "a field"], [0])
    with pytest.raises(ValueError, match=r"2 of 3 captions.*\b1\b"):
        generator.generate(["a field", " ", ""], [0, 1, 2])
    with pytest.raises(ValueError, match=r"2 of 3 captions.*\b1\b"):
        generator.generate([("a field", "a dark field"), ("a field", " "), ()], [0, 1, 2])
