import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from synth2_lightning.encoders.open_clip import OpenClipEncoder, OpenClipImageTextEncoder
from synth2_lightning.testing import check_image_encoder
from synth2_lightning.types import Pixels

TEXT = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
TOWERS = {
    "tiny-vit": {"image_size": 32, "layers": 3, "width": 48, "patch_size": 8, "head_width": 16},
    "tiny-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "tiny-siglip": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"},
    "tiny-coca": {
        "image_size": 32,
        "layers": 2,
        "width": 48,
        "patch_size": 8,
        "head_width": 16,
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    },
}


@pytest.fixture(scope="module", autouse=True)
def _tiny_architectures(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("architectures")
    for name, tower in TOWERS.items():
        config = {"embed_dim": 32, "vision_cfg": tower, "text_cfg": TEXT, "custom_text": "siglip" in name}
        (folder / f"{name}.json").write_text(json.dumps(config))
    config = {"embed_dim": 32, "vision_cfg": TOWERS["tiny-vit"], "text_cfg": TEXT | {"vocab_size": 49408}}
    (folder / "tiny-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def save_random(model: str, folder: Path) -> tuple[nn.Module, str]:
    torch.manual_seed(0)
    network = open_clip.create_model(model).eval()
    path = folder / f"{model}.safetensors"
    save_file(network.state_dict(), path)
    return network, str(path)


def random_pixels(size: int) -> Pixels:
    return Pixels(torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.manual_seed(1)))


def clip_normalized(pixels: Pixels) -> Tensor:
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    return (pixels.values / 255 - mean) / std


@torch.no_grad()
def test_vit_gives_the_patches_that_open_clip_pools(tmp_path: Path) -> None:
    model, path = save_random("tiny-vit", tmp_path)
    encoder = OpenClipEncoder("tiny-vit", path)
    encoder.load()
    pixels = random_pixels(32)
    model.visual.output_tokens = True  # type: ignore[union-attr]
    _, patches = model.visual(clip_normalized(pixels))  # type: ignore[operator]
    torch.testing.assert_close(encoder.encode_pixels(pixels), patches)


@torch.no_grad()
def test_inner_block_comes_without_the_final_norm(tmp_path: Path) -> None:
    model, path = save_random("tiny-vit", tmp_path)
    encoder = OpenClipEncoder("tiny-vit", path, layer=-2)
    encoder.load()
    pixels = random_pixels(32)
    taken: list[Tensor] = []
    block = model.visual.transformer.resblocks[1]  # type: ignore[union-attr,index]
    block.register_forward_hook(lambda *call: taken.append(call[2]))  # type: ignore[union-attr]
    model.visual(clip_normalized(pixels))  # type: ignore[operator]
    torch.testing.assert_close(encoder.encode_pixels(pixels), taken[0][:, 1:])


@pytest.mark.parametrize("model", list(TOWERS))
def test_every_kind_of_tower_keeps_the_contract(model: str, tmp_path: Path) -> None:
    _, path = save_random(model, tmp_path)
    encoder = OpenClipEncoder(model, path)
    check_image_encoder(encoder)
    assert encoder.encode_pixels(random_pixels(encoder.image_size)).std() > 0


def test_text_tower_is_dropped(tmp_path: Path) -> None:
    model, path = save_random("tiny-vit", tmp_path)
    encoder = OpenClipEncoder("tiny-vit", path)
    encoder.load()
    assert len(list(encoder.parameters())) == len(list(model.visual.parameters()))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("model", "pretrained", "widths"),
    [
        ("ViT-L-14", "openai", (256, 1024, 224)),
        ("RN50", "openai", (49, 2048, 224)),
        ("ViT-B-16-SigLIP", "webli", (196, 768, 224)),
    ],
)
@pytest.mark.filterwarnings("ignore:QuickGELU mismatch")
def test_widths_are_known_without_weights(model: str, pretrained: str, widths: tuple[int, int, int]) -> None:
    encoder = OpenClipEncoder(model, pretrained)
    assert (encoder.num_tokens, encoder.embed_dim, encoder.image_size) == widths
    assert encoder.network is None


def test_statistics_are_the_tags() -> None:
    siglip = OpenClipEncoder("ViT-B-16-SigLIP", "webli")
    assert siglip.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert siglip.preprocessing.resize_mode == "squash"
    clip = OpenClipEncoder("ViT-B-32", "laion2b_s34b_b79k")
    assert clip.mean.flatten().tolist() == pytest.approx(open_clip.OPENAI_DATASET_MEAN)
    assert clip.preprocessing.resize_mode == "shortest"


def test_local_file_takes_the_statistics_that_all_tags_agree_on() -> None:
    assert OpenClipEncoder("ViT-B-16-SigLIP", "my/siglip.safetensors").mean.flatten().tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(("tag", "activation"), [("openai", QuickGELU), ("laion2b_s34b_b79k", nn.GELU)])
def test_activation_is_the_tags(tag: str, activation: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    build = open_clip.create_model

    def build_without_download(model: str, **options: Any) -> Any:
        with torch.device("meta"):
            return build(model, **options | {"pretrained": None, "device": "meta"})

    monkeypatch.setattr(open_clip, "create_model", build_without_download)
    encoder = OpenClipEncoder("ViT-B-32", tag)
    network = encoder.build_network()
    assert isinstance(network, torch.nn.Module)
    assert any(isinstance(module, activation) for module in network.modules())


def test_statistics_can_be_overridden() -> None:
    encoder = OpenClipEncoder(
        "tiny-vit", "x.pt", mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), interpolation="bilinear", resize_mode="squash"
    )
    assert encoder.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert encoder.std.flatten().tolist() == [1.0, 1.0, 1.0]
    assert (encoder.preprocessing.interpolation, encoder.preprocessing.resize_mode) == ("bilinear", "squash")


def test_image_size_changes_the_grid(tmp_path: Path) -> None:
    _, path = save_random("tiny-vit", tmp_path)
    encoder = OpenClipEncoder("tiny-vit", path, image_size=48)
    encoder.load()
    assert encoder.num_tokens == 36
    assert encoder.encode_pixels(random_pixels(32)).shape == (2, 36, 48)


def test_the_name_contains_model_weights_layer_and_size() -> None:
    assert OpenClipEncoder("tiny-vit", "folder/mine.pt", layer=1).name == "tiny-vit/mine/1@32"


def test_construction_silences_the_warning_of_random_weights_and_nothing_else(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_model = open_clip.create_model

    def create_and_warn(*args: Any, **kwargs: Any) -> Any:
        logging.getLogger("other").warning("during")
        logging.warning("during")
        return create_model(*args, **kwargs)

    monkeypatch.setattr(open_clip, "create_model", create_and_warn)
    OpenClipEncoder("tiny-vit", "x.pt")
    create_model("tiny-vit", load_weights=False)
    assert [record.name for record in caplog.records] == ["other", "root", "root"]
    assert [record.message for record in caplog.records][:2] == ["during", "during"]
    assert "initialized" in caplog.records[2].message


@pytest.mark.parametrize("shape", [(61, 87), (300, 200), (224, 96)])
def test_device_resize_matches_open_clips_own(shape: tuple[int, int]) -> None:
    """The same framing and filter as PIL's; both round to uint8 twice, which leaves two steps at most."""
    rough = np.random.default_rng(0).integers(0, 256, (shape[0] // 8 + 1, shape[1] // 8 + 1, 3), dtype=np.uint8)
    image = Image.fromarray(rough).resize(shape[::-1], Image.Resampling.BICUBIC)
    encoder = OpenClipEncoder("tiny-vit", "x.pt")
    theirs = open_clip.image_transform(32, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3)(image) * 255
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    ours = encoder.preprocessing.frame(pixels)[0].float()
    difference = (ours - theirs).abs()
    assert difference.max() <= 2
    assert difference.mean() <= 0.2


CAPTIONS = ["a red circle", "two small green squares on a striped background", "a ring"]


@torch.no_grad()
def test_both_towers_embed_as_open_clip_does(tmp_path: Path) -> None:
    model, path = save_random("tiny-clip", tmp_path)
    encoder = OpenClipImageTextEncoder("tiny-clip", path)
    encoder.load()
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    pixels, words = random_pixels(32), open_clip.get_tokenizer("tiny-clip")(CAPTIONS)
    images = model.encode_image(clip_normalized(pixels), normalize=True)  # type: ignore[operator]
    torch.testing.assert_close(encoder.embed_images(pixels), images)
    texts = model.encode_text(words, normalize=True)  # type: ignore[operator]
    torch.testing.assert_close(encoder.embed_texts(CAPTIONS), texts)
    assert encoder.embed_images(random_pixels(50)).norm(dim=1).tolist() == pytest.approx([1.0, 1.0])
    provenance = encoder.provenance()
    encoder.load()
    assert (
        encoder.provenance()
        == provenance
        == {"model": "tiny-clip", "pretrained": "tiny-clip", "weights": provenance["weights"]}
    )


def test_towers_need_weights_and_a_known_architecture() -> None:
    encoder = OpenClipImageTextEncoder("tiny-clip", "x.pt")
    with pytest.raises(RuntimeError, match=r"'tiny-clip'.*load\(\)"):
        encoder.embed_images(random_pixels(32))
    with pytest.raises(RuntimeError, match=r"'tiny-clip'.*load\(\)"):
        encoder.embed_texts(CAPTIONS)
    with pytest.raises(ValueError, match="architecture 'ViT-X'"):
        OpenClipImageTextEncoder("ViT-X", "x.pt")


def test_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'ViT-X'.*open_clip\.list_models"):
        OpenClipEncoder("ViT-X", "openai")


def test_unknown_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'tiny-vit'.*layer 3.*-3 to 2"):
        OpenClipEncoder("tiny-vit", "x.pt", layer=3)


def test_neither_tag_nor_file_lists_the_tags() -> None:
    with pytest.raises(FileNotFoundError, match=r"'laion9b'.*tag of ViT-B-32.*openai"):
        OpenClipEncoder("ViT-B-32", "laion9b").load()


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    _, path = save_random("tiny-resnet", tmp_path)
    with pytest.raises(OSError, match=r"'tiny-vit'.*state dict"):
        OpenClipEncoder("tiny-vit", path).load()


def test_the_message_of_an_unreachable_tag_names_the_remedy() -> None:
    with pytest.raises(OSError, match=r"'laion2b_s34b_b79k'.*'ViT-B-32'.*network"):
        OpenClipEncoder("ViT-B-32", "laion2b_s34b_b79k").load()
