import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from synth2_lightning.encoders.frozen import FrozenEncoder, Preprocessing
from synth2_lightning.testing import check_image_encoder
from synth2_lightning.types import Pixels

HALF = (0.5, 0.5, 0.5)


class PatchMeans(FrozenEncoder[nn.Module]):
    """Encoder whose features are the means of 4x4 patches, so that the output identifies the input."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__("patch-means", preprocessing, nn.AvgPool2d(4))
        self.num_builds = 0

    def build_network(self) -> nn.Module:
        self.num_builds += 1
        return nn.Sequential(nn.BatchNorm2d(3, affine=True), nn.AvgPool2d(4))

    def feature_map(
        self, network: nn.Module, images: Float[Tensor, "batch 3 size size"]
    ) -> Float[Tensor, "batch dim height width"]:
        features: Tensor = network(images)
        return features


def loaded(preprocessing: Preprocessing) -> PatchMeans:
    encoder = PatchMeans(preprocessing)
    encoder.load()
    return encoder


def test_it_keeps_the_contract_of_image_encoders() -> None:
    check_image_encoder(PatchMeans(Preprocessing(8, HALF, HALF)), image_size=20)


def test_widths_are_known_before_the_weights() -> None:
    encoder = PatchMeans(Preprocessing(16, HALF, HALF))
    assert (encoder.num_tokens, encoder.embed_dim, encoder.image_size) == (16, 3, 16)
    assert encoder.num_builds == 0
    assert list(encoder.parameters()) == []


def test_load_twice_builds_once() -> None:
    encoder = loaded(Preprocessing(16, HALF, HALF))
    encoder.load()
    assert encoder.num_builds == 1


def test_frozen_in_evaluation_mode() -> None:
    encoder = loaded(Preprocessing(16, HALF, HALF)).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    encoder.encode_pixels(Pixels(torch.full((2, 3, 16, 16), 255, dtype=torch.uint8)))
    assert all(float(buffer.abs().sum()) in (0.0, 3.0) for buffer in encoder.network.buffers())  # type: ignore[union-attr]


def test_values_are_normalized() -> None:
    encoder = loaded(Preprocessing(8, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25)))
    embeddings = encoder.encode_pixels(Pixels(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)))
    torch.testing.assert_close(embeddings, torch.tensor([1.0, 1.0, 0.0]).expand(1, 4, 3), atol=1e-4, rtol=0)


def test_tokens_are_in_raster_order() -> None:
    values = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    values[:, :, :4, 4:] = 255  # upper right
    embeddings = loaded(Preprocessing(8, (0.0,) * 3, (1.0,) * 3)).encode_pixels(Pixels(values))
    assert embeddings[0, :, 0].round().tolist() == [0.0, 1.0, 0.0, 0.0]


def test_images_of_the_right_size_are_untouched() -> None:
    values = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert Preprocessing(16, HALF, HALF).frame(values) is values


def test_shortest_side_is_scaled_and_the_middle_cut_out() -> None:
    values = torch.zeros(1, 3, 8, 24, dtype=torch.uint8)
    values[..., 8:16] = 200
    assert torch.equal(Preprocessing(8, HALF, HALF).frame(values), torch.full((1, 3, 8, 8), 200, dtype=torch.uint8))


def test_squash_keeps_the_whole_image() -> None:
    values = torch.zeros(1, 3, 8, 24, dtype=torch.uint8)
    values[..., 12:] = 200
    framed = Preprocessing(8, HALF, HALF, interpolation="bilinear", resize_mode="squash").frame(values)
    assert framed.shape == (1, 3, 8, 8)
    assert framed[..., 0].max() == 0
    assert framed[..., -1].min() == 200


def test_no_gradient_flows() -> None:
    embeddings = loaded(Preprocessing(8, HALF, HALF)).encode_pixels(Pixels(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)))
    assert not embeddings.requires_grad


def test_encoding_before_load_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"'patch-means'.*load\(\)"):
        PatchMeans(Preprocessing(8, HALF, HALF)).encode_pixels(Pixels(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)))


def test_a_processor_gets_few_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = loaded(Preprocessing(16, HALF, HALF))
    pixels = Pixels(torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8))
    sizes: list[int] = []
    encoder.network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))  # type: ignore[union-attr]
    features = encoder.encode_pixels(pixels)
    assert sizes == [2, 2, 1]
    monkeypatch.setattr("synth2_lightning.encoders.frozen.FROZEN_CHUNK", 5)
    torch.testing.assert_close(encoder.encode_pixels(pixels), features)
    assert encoder.encode_pixels(Pixels(pixels.values[:0])).shape == (0, 16, 3)
