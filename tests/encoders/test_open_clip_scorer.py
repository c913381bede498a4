import json
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from synth2_lightning.encoders.open_clip_scorer import OpenClipScorer
from synth2_lightning.encoders.vqgan import VQGANTokenizer
from synth2_lightning.testing import TinyImageTokenizer, check_pair_scorer
from synth2_lightning.types import VQTokens

CAPTIONS = ["a red circle", "two small green squares on a striped background", "a ring"]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    folder = tmp_path_factory.mktemp("architectures")
    image_tower = {"image_size": 32, "layers": 3, "width": 48, "patch_size": 8, "head_width": 16}
    text_tower = {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 32, "vision_cfg": image_tower, "text_cfg": text_tower}
    (folder / "scorer-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    network: nn.Module = open_clip.create_model("scorer-clip")
    return network.eval()


@pytest.fixture
def path(network: nn.Module, tmp_path: Path) -> str:
    path = tmp_path / "scorer-clip.safetensors"
    save_file(network.state_dict(), path)
    return str(path)


def scenes_tokenizer() -> VQGANTokenizer:
    return VQGANTokenizer("package://synth2_lightning/scenes/tokenizer")


def random_tokens() -> VQTokens:
    tokenizer = scenes_tokenizer()
    tokenizer.load()
    return VQTokens(torch.randint(0, 512, (3, 64, 1), generator=torch.manual_seed(2)), tokenizer.codebook)


def test_a_score_is_open_clips_own_cosine(network: nn.Module, path: str) -> None:
    tokens, tokenizer = random_tokens(), scenes_tokenizer()
    scorer = OpenClipScorer(tokenizer, "scorer-clip", path)
    check_pair_scorer(scorer, tokens, CAPTIONS, atol=1e-5)

    _, _, preprocess = open_clip.create_model_and_transforms("scorer-clip")
    arrays = tokenizer.detokenize(tokens).values.permute(0, 2, 3, 1).numpy()
    images = torch.stack([preprocess(Image.fromarray(array)) for array in arrays])
    with torch.no_grad():
        image = network.encode_image(images, normalize=True)  # type: ignore[operator]
        text = network.encode_text(open_clip.get_tokenizer("scorer-clip")(CAPTIONS), normalize=True)  # type: ignore[operator]
    # open_clip resizes with Pillow, which rounds once more.
    torch.testing.assert_close(scorer.score(tokens, CAPTIONS), (image * text).sum(1), atol=5e-3, rtol=0)
    assert scorer.score(tokens, CAPTIONS).std() > 0.02
    provenance = scorer.provenance()
    assert provenance["weights"].startswith("open_clip:")
    assert (provenance["model"], provenance["pretrained"]) == ("scorer-clip", "scorer-clip")


def test_scoring_needs_weights_and_a_tokenizer_that_decodes(path: str) -> None:
    tokens = VQTokens(torch.zeros(1, 4, 1, dtype=torch.long), TinyImageTokenizer.codebook)
    scorer = OpenClipScorer(TinyImageTokenizer(), "scorer-clip", path)
    with pytest.raises(RuntimeError, match=r"'scorer-clip'.*load\(\)"):
        scorer.score(tokens, ["a field"])
    scorer.load()
    with pytest.raises(TypeError, match=r"no decoder.*VQGANTokenizer"):
        scorer.score(tokens, ["a field"])
    with pytest.raises(ValueError, match="architecture 'ViT-X'"):
        OpenClipScorer(TinyImageTokenizer(), "ViT-X", path)
