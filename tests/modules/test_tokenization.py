from dataclasses import replace

import pytest
import torch

from synth2_lightning.modules.tokenization import TokenizationModule
from synth2_lightning.testing import TinyImageTokenizer, tiny_batch


def test_images_keep_their_keys_and_all_their_captions() -> None:
    module, batch = TokenizationModule(TinyImageTokenizer()), tiny_batch(3)
    module.configure_model()
    images = module.predict_step(batch, 0)

    assert (images.keys, images.sources, images.captions) == (batch.keys, batch.sources, batch.references)
    assert torch.equal(images.tokens.ids, TinyImageTokenizer().tokenize(batch.image).ids)  # type: ignore[arg-type]
    assert images.codebook_size == 16
    assert module.predict_step(replace(batch, references=()), 0).captions == tuple((text,) for text in batch.captions)
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_tokens_are_not_tokenized_again() -> None:
    batch = tiny_batch()
    tokens = TinyImageTokenizer().tokenize(batch.image)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match=r"TokenizationModule.*VQTokens.*Pixels"):
        TokenizationModule(TinyImageTokenizer()).predict_step(replace(batch, image=tokens), 0)
