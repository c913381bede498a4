from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from synth2_lightning.encoders.timm_features import TimmFeatures
from synth2_lightning.io.registry_weights import WEIGHTS
from synth2_lightning.nn.perceptual import perceptual_distance
from synth2_lightning.scenes.source import ScenesSource

LITE0 = "weights://efficientnet-lite0/efficientnet-lite0-57934424.pth"
MODEL = "test_efficientnet"


@pytest.fixture
def network(tmp_path: Path) -> nn.Module:
    torch.manual_seed(0)
    network = timm.create_model(MODEL).eval()
    save_file(network.state_dict(), tmp_path / "random.safetensors")
    return network  # type: ignore[no-any-return]


@pytest.fixture
def features(network: nn.Module, tmp_path: Path) -> TimmFeatures:
    del network  # it is loaded from the file
    features = TimmFeatures(MODEL, weights=str(tmp_path / "random.safetensors"), layers=(0, 2))
    features.load()
    features.load()
    return features


def noise(size: int = 64) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def blurred_distances(features: TimmFeatures, images: Tensor) -> list[float]:
    """Return distances of images to themselves, unblurred and with increasing blur."""
    wanted = features.extract(images)
    copies = [images, *(gaussian_blur(images, [9, 9], [sigma, sigma]) for sigma in (0.4, 0.8, 1.6))]
    with torch.no_grad():
        return [float(perceptual_distance(features.extract(copy), wanted)) for copy in copies]


def test_features_are_those_of_the_network_on_normalized_images(network: nn.Module, features: TimmFeatures) -> None:
    mean, std = (torch.tensor(network.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))  # type: ignore[index]
    with torch.no_grad():
        stem = network.bn1(network.conv_stem(((noise() + 1) / 2 - mean) / std))  # type: ignore[operator]
        first = network.blocks[0](stem)  # type: ignore[index,operator]
        third = network.blocks[2](network.blocks[1](first))  # type: ignore[index,operator]
        given = features.extract(noise())
    assert features.stages == ("blocks.0", "blocks.2")
    torch.testing.assert_close(given, [first, third])


def test_modules_after_the_last_layer_are_dropped(features: TimmFeatures) -> None:
    assert len(list(features.get_submodule("network.blocks").children())) == 3


def test_equal_images_have_no_distance_and_blur_grows_it(features: TimmFeatures) -> None:
    distances = blurred_distances(features, noise())
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert distances[1] > 0


def test_a_gradient_reaches_the_images_and_not_the_network(features: TimmFeatures) -> None:
    images = noise().requires_grad_()
    torch.autograd.backward(perceptual_distance(features.extract(images), features.extract(noise(64).flip(0))))
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(not weight.requires_grad and weight.grad is None for weight in features.parameters())


def test_training_mode_moves_no_statistics(features: TimmFeatures) -> None:
    before = {name: tensor.clone() for name, tensor in features.state_dict().items()}
    features.train().extract(noise())
    assert all(torch.equal(tensor, before[name]) for name, tensor in features.state_dict().items())


def test_layers_are_counted_from_the_end_where_negative() -> None:
    assert TimmFeatures(MODEL, layers=(-1, 0, 0)).stages == ("blocks.0", "blocks.4")


def test_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'test_efficientnet'.*layer 5.*-5 to 4"):
        TimmFeatures(MODEL, layers=(0, 5))
    with pytest.raises(ValueError, match="no layer of 'test_efficientnet'"):
        TimmFeatures(MODEL, layers=())


def test_networks_for_images_of_one_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'test_vit'.*one size.*convolutional"):
        TimmFeatures("test_vit")


def test_weights_that_were_not_brought_are_missed() -> None:
    with pytest.raises(RuntimeError, match=r"'test_efficientnet'.*load\(\)"):
        TimmFeatures(MODEL).extract(noise())


@pytest.mark.skipif(
    not next(entry for entry in WEIGHTS if entry.name == "efficientnet-lite0").is_fetched,
    reason="the real weights are not in the cache: run `synth2 weights efficientnet-lite0`",
)
def test_downloaded_weights_distinguish_sharp_scenes_from_blurred_ones() -> None:
    features = TimmFeatures("tf_efficientnet_lite0", weights=LITE0)
    features.load()
    source = ScenesSource("val", num_images=4)
    source.load()
    drawn = [torch.frombuffer(bytearray(source.image(i).convert("RGB").tobytes()), dtype=torch.uint8) for i in range(4)]
    side = source.image(0).width
    images = torch.stack(drawn).view(4, side, side, 3).permute(0, 3, 1, 2) / 127.5 - 1
    distances = blurred_distances(features, images)
    assert distances[0] == 0
    assert distances == sorted(distances)
    assert distances[-1] > 0.1
