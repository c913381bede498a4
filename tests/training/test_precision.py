from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer

from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.modules.scoring import ScoringModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyPairScorer, TinyResampler


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
@pytest.mark.parametrize(
    "module",
    [VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder()), ScoringModule(TinyPairScorer())],
    ids=["trained", "prediction"],
)
def test_a_precision_that_casts_frozen_networks_is_refused(module: LightningModule, precision: Any) -> None:
    trainer = Trainer(accelerator="cpu", precision=precision, barebones=True)
    with pytest.raises(ValueError, match=rf"{type(module).__name__}.*'{precision}'.*'32-true', 'bf16-mixed'"):
        trainer.predict(module, [])
