import numpy as np
import pytest
import torch
from PIL import Image

from synth2_lightning.demo.word_maps import draw_map, map_words
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch
from synth2_lightning.types import Pixels


@torch.no_grad()
def test_a_map_is_attention_of_a_word_to_queries_times_theirs_to_places(module: VisionLanguageModule) -> None:
    image = Pixels(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))
    words, maps = map_words(module, image, "a red circle")
    assert words == ("a", "red", "circle")
    assert maps.shape == (3, 8, 8)
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(3))
    embeddings = module.image_encoder(image)
    to_places = module.resampler.attention(embeddings)[0]
    to_queries = module.decoder.attention(module.resampler(embeddings), ["a red circle"])[0]
    by_hand = sum(to_queries[2, query] * to_places[query, 8 * 5 + 6] for query in range(4))
    torch.testing.assert_close(maps[2, 5, 6], torch.as_tensor(by_hand))


def test_parts_without_attention_weights_are_named() -> None:
    tiny = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    with pytest.raises(TypeError, match="TinyResampler"):
        map_words(tiny, tiny_batch(1).image, "a field")
    with pytest.raises(TypeError, match=r"TinyDecoder.*attention"):
        tiny.decoder.attention(torch.zeros(1, 4, 8), ["a field"])


def test_a_number_of_positions_that_is_no_square_is_refused(
    module: VisionLanguageModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.image_encoder, "encode_pixels", lambda _: torch.zeros(1, 50, 32))
    with pytest.raises(ValueError, match=r"vqgan.* 50 .*square"):
        map_words(module, Pixels(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)), "a circle")


def test_the_largest_weight_is_warmest_and_zero_is_gray() -> None:
    weights = torch.zeros(8, 8)
    weights[1, 6] = 0.5
    drawn = np.asarray(draw_map(Image.new("RGB", (64, 64), (200, 40, 40)), weights, strongest=0.5, side=128)).astype(
        int
    )
    red, _, blue = drawn[16 + 8, 16 * 6 + 8]
    assert red - blue > 50
    assert len(set(drawn[120, 10])) == 1
