import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from synth2_lightning.interfaces import ImageEncoder
from synth2_lightning.testing import (
    TinyImageGenerator,
    TinyImageTokenizer,
    check_image_encoder,
    check_image_generator,
    check_image_tokenizer,
    tiny_batch,
)
from synth2_lightning.types import ImageEmbeddings, MixedImages, Pixels, SoftVQTokens, VQTokens


class PlainEncoder(ImageEncoder):
    name, num_tokens, embed_dim, image_size = "plain", 1, 3, 8

    def encode_pixels(self, pixels: Pixels) -> Float[Tensor, "batch tokens dim"]:
        return pixels.values.float().mean((2, 3)).unsqueeze(1)


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


def test_ready_made_embeddings_pass_only_from_the_same_encoder() -> None:
    values = torch.randn(2, 1, 3)
    assert torch.equal(PlainEncoder()(ImageEmbeddings(values, "plain")), values)
    with pytest.raises(ValueError, match=r"made by 'other', this run's encoder is 'plain'.*encode the pictures again"):
        PlainEncoder()(ImageEmbeddings(values, "other"))


def test_an_encoder_without_codebook_refuses_tokens() -> None:
    ids = torch.zeros(1, 1, 1, dtype=torch.long)
    with pytest.raises(TypeError, match=r"'plain' cannot embed image tokens \(codebook 'vqgan-8:ab'\).*Use the"):
        PlainEncoder()(VQTokens(ids, "vqgan-8:ab"))
    with pytest.raises(TypeError, match="it has no codebook"):
        PlainEncoder()(SoftVQTokens(ids[..., None], torch.ones(1, 1, 1, 1), "vqgan-8:ab"))


def test_foreign_codebooks_and_ids_outside_the_codebook_are_refused() -> None:
    tokenizer = TinyImageTokenizer()
    ids = torch.zeros(1, 4, 1, dtype=torch.long)
    with pytest.raises(ValueError, match=r"speak codebook 'other:1', this run's tokenizer speaks 'tiny-16:00000000'"):
        tokenizer(VQTokens(ids, "other:1"))
    with pytest.raises(ValueError, match=r"hold ids from 0 to 16, but codebook .* has the ids 0 to 15"):
        tokenizer(VQTokens(ids + torch.tensor([0, 0, 0, 16])[:, None], tokenizer.codebook))


def test_a_tokenizer_without_decoder_says_so() -> None:
    with pytest.raises(TypeError, match="has no decoder from codes"):
        TinyImageTokenizer().detokenize(VQTokens(torch.zeros(1, 4, 1, dtype=torch.long), "tiny-16:00000000"))


def test_captions_that_are_empty_or_have_no_seed_are_refused() -> None:
    generator = TinyImageGenerator()
    with pytest.raises(ValueError, match="was given 2 captions and 1 seeds; expected one seed per caption"):
        generator.generate(["a field", "a field"], [0])
    with pytest.raises(
        ValueError, match=r"2 of 3 captions are empty \(the first is number 1 .* Leave these records out"
    ):
        generator.generate(["a field", " ", ""], [0, 1, 2])
