from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from synth2_lightning.nn.condition_text import encode_conditions
from synth2_lightning.testing import TinyTextEncoder
from synth2_lightning.types import Condition

CONDITIONS: list[Condition] = [("a dark field", "a field"), "bright", ("a bright field", "dark", "a b c d")]


def real_tokens(conditions: Sequence[Condition]) -> list[Tensor]:
    embeddings, mask = encode_conditions(TinyTextEncoder(), conditions)
    return [row[is_text] for row, is_text in zip(embeddings, mask, strict=True)]


def test_a_condition_has_the_tokens_of_its_captions_one_after_another() -> None:
    for condition, tokens in zip(CONDITIONS, real_tokens(CONDITIONS), strict=True):
        texts = [condition] if isinstance(condition, str) else condition
        expected = torch.cat([TinyTextEncoder().encode([text])[0][0] for text in texts])
        assert torch.equal(tokens, expected)


@pytest.mark.parametrize("texts", [["a field", "a dark field"], [("a field",), ("a dark field",)]])
def test_single_captions_are_those_of_the_encoder(texts: list[Condition]) -> None:
    embeddings, mask = encode_conditions(TinyTextEncoder(), texts)
    expected, expected_mask = TinyTextEncoder().encode(["a field", "a dark field"])
    assert torch.equal(embeddings, expected)
    assert torch.equal(mask, expected_mask)
