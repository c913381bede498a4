from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from synth2_lightning.modules.scoring import ScoringModule
from synth2_lightning.testing import TinyImageTokenizer, TinyPairScorer, tiny_batch
from synth2_lightning.types import SampleInfo, TokenizedImages, VQTokens

IMAGES = TokenizedImages(
    samples=(SampleInfo("k0", "synthetic", "field", 3), SampleInfo("k1", "synthetic", "", 4)),
    captions=(("a bright field",), ("a dark field", "a bright field")),
    tokens=VQTokens(torch.tensor([4, 1])[:, None, None].expand(2, 4, 1), TinyImageTokenizer.codebook),
    codebook_size=16,
)


class Lost(TinyPairScorer):
    def score(self, tokens: VQTokens, captions: Sequence[str]) -> Float[Tensor, " batch"]:
        return super().score(tokens, captions).log() - torch.tensor([0, torch.inf, 0])


def test_every_caption_is_scored_with_its_image() -> None:
    module = ScoringModule(TinyPairScorer())
    module.configure_model()
    scored = module.predict_step(IMAGES, 0)

    assert scored.scores == ((4.0,), (14.0, 1.0))
    assert (scored.keys, scored.captions, scored.seeds) == (IMAGES.keys, IMAGES.captions, (3, 4))
    assert scored.samples == IMAGES.samples
    assert scored.tokens is IMAGES.tokens
    assert module.predict_step(scored, 0).scores == scored.scores
    blank = replace(IMAGES, captions=((), ()))
    assert module.predict_step(blank, 0).scores == ((), ())


def test_provenance_names_the_scorer_and_its_settings() -> None:
    assert ScoringModule(TinyPairScorer()).provenance() == {
        "scorer_class": "TinyPairScorer",
        "codebook": TinyImageTokenizer.codebook,
    }


def test_batches_that_are_not_from_shards_are_refused() -> None:
    with pytest.raises(TypeError, match=r"ScoringModule.*ImageTextBatch.*TokenizedImages.*Shard"):
        ScoringModule(TinyPairScorer()).predict_step(tiny_batch(), 0)


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Lost.*'a dark field'.*-inf.*finite"):
        ScoringModule(Lost()).predict_step(IMAGES, 0)
