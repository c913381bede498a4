import logging
import resource

import pytest
import timm
import torch
from torch import Tensor

from synth2_lightning.encoders.feature_cache import FeatureCache
from synth2_lightning.encoders.timm import TimmEncoder
from synth2_lightning.testing import TinyImageTokenizer
from synth2_lightning.types import Pixels


class CountingEncoder(TinyImageTokenizer):
    def __init__(self) -> None:
        super().__init__()
        self.num_encoded = 0

    def encode_pixels(self, pixels: Pixels) -> Tensor:
        self.num_encoded += len(pixels.values)
        return super().encode_pixels(pixels)


def images(num: int, seed: int = 0, size: int = 8) -> Tensor:
    return torch.randint(0, 256, (num, 3, size, size), dtype=torch.uint8, generator=torch.manual_seed(seed))


ROW_GIB = 4 * 6 * 4 / 2**30  # four tokens of six float32 numbers


def test_an_image_is_encoded_once() -> None:
    encoder = CountingEncoder()
    cache, values = FeatureCache(encoder, cache_gib=1.0), images(5)
    expected = TinyImageTokenizer().encode_pixels(Pixels(values))
    for rows in ([0, 1, 0, 2], [3, 2, 1, 3], [4, 0, 3, 3]):
        assert torch.equal(cache.encode(Pixels(values[rows])), expected[rows])
    assert (encoder.num_encoded, cache.num_images) == (5, 5)


def test_images_that_do_not_fit_are_encoded_each_time() -> None:
    encoder = CountingEncoder()
    cache, values = FeatureCache(encoder, cache_gib=2.5 * ROW_GIB), images(4)
    for _ in range(3):
        assert torch.equal(cache.encode(Pixels(values)), TinyImageTokenizer().encode_pixels(Pixels(values)))
    assert (encoder.num_encoded, cache.num_images) == (4 + 2 + 2, 2)
    without = FeatureCache(encoder, cache_gib=0.0)
    assert torch.equal(without.encode(Pixels(values)), without.encode(Pixels(values)))
    assert (encoder.num_encoded, without.num_images) == (8 + 2 * 4, 0)


def test_a_disk_without_space_ends_the_cache_not_the_run(caplog: pytest.LogCaptureFixture) -> None:
    encoder = CountingEncoder()
    cache, values = FeatureCache(encoder, cache_gib=1.0), images(4)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (250, limits[1]))  # two images and a half
    try:
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert torch.equal(cache.encode(Pixels(values)), TinyImageTokenizer().encode_pixels(Pixels(values)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (encoder.num_encoded, cache.num_images) == (4 + 2, 2)
    (record,) = caplog.records
    assert "2 images" in record.getMessage()
    assert "TMPDIR" in record.getMessage()


def test_the_same_bytes_in_another_shape_are_another_image() -> None:
    cache = FeatureCache(encoder := CountingEncoder(), cache_gib=1.0)
    tall = images(1).reshape(1, 3, 16, 4)
    cache.encode(Pixels(images(1)))
    assert torch.equal(cache.encode(Pixels(tall)), TinyImageTokenizer().encode_pixels(Pixels(tall)))
    assert encoder.num_encoded == 2


def test_features_do_not_depend_on_the_batch_in_which_an_image_was_encoded() -> None:
    # Otherwise a resumed run, which encodes again, would differ from an uninterrupted one.
    encoder = TimmEncoder("tf_efficientnet_lite0", image_size=64)
    encoder.network = timm.create_model("tf_efficientnet_lite0").eval().to(memory_format=torch.channels_last)
    values = images(19, size=64)
    together = encoder.encode_pixels(Pixels(values))
    cache = FeatureCache(encoder, cache_gib=1.0)
    for rows in ([7], [3, 7, 18], list(range(19))):
        assert torch.equal(cache.encode(Pixels(values[rows])), together[rows])
    assert together.dtype == torch.float32


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cache_gib=-1.*0 or more"):
        FeatureCache(TinyImageTokenizer(), cache_gib=-1.0)
