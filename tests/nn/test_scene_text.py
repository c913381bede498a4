from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from synth2_lightning.nn.scene_text import encode_scenes
from synth2_lightning.testing import TinyTextEncoder
from synth2_lightning.types import Condition

SCENES: list[Condition] = [("a dark field", "a field"), "bright", ("a bright field", "dark", "a b c d")]


def real_tokens(scenes: Sequence[Condition]) -> list[Tensor]:
    embeddings, mask = encode_scenes(TinyTextEncoder(), scenes)
    return [row[is_text] for row, is_text in zip(embeddings, mask, strict=True)]


def test_a_scene_has_the_tokens_of_its_captions_one_after_another() -> None:
    for scene, tokens in zip(SCENES, real_tokens(SCENES), strict=True):
        texts = [scene] if isinstance(scene, str) else scene
        expected = torch.cat([TinyTextEncoder().encode([text])[0][0] for text in texts])
        assert torch.equal(tokens, expected)


@pytest.mark.parametrize("texts", [["a field", "a dark field"], [("a field",), ("a dark field",)]])
def test_single_captions_are_those_of_the_encoder(texts: list[Condition]) -> None:
    embeddings, mask = encode_scenes(TinyTextEncoder(), texts)
    expected, expected_mask = TinyTextEncoder().encode(["a field", "a dark field"])
    assert torch.equal(embeddings, expected)
    assert torch.equal(mask, expected_mask)
