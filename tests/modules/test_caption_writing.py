from unittest.mock import Mock

import pytest

from synth2_lightning.modules.caption_writing import CaptionWritingModule
from synth2_lightning.testing import TinyCaptionGenerator
from synth2_lightning.types import CaptionBatch, ChatMessage, Completion, PromptBatch

PROMPTS = tuple((ChatMessage("user", word),) for word in ("dog", "oak"))
BATCH = PromptBatch(PROMPTS, ("dog-0", "oak-0"), ("list",) * 2, ("dog", "oak"), ("plain@1",) * 2, (5, 7))


def test_answers_stand_beside_what_was_asked() -> None:
    written = CaptionWritingModule(TinyCaptionGenerator()).predict_step(BATCH, 0)
    assert written.batch is BATCH
    assert [answer.text for answer in written.completions] == [
        "A picture of dog number 5.",
        "A picture of oak number 7.",
    ]
    assert written.model == "tiny"


def test_provenance_is_the_generators() -> None:
    assert CaptionWritingModule(TinyCaptionGenerator(salt=3)).provenance() == {
        "generator_class": "TinyCaptionGenerator",
        "salt": 3,
    }


def test_the_language_model_is_loaded_when_the_strategy_says_so() -> None:
    module = CaptionWritingModule(TinyCaptionGenerator())
    module.generator.load = Mock()  # type: ignore[method-assign]
    module.configure_model()
    module.generator.load.assert_called_once_with()


def test_other_batches_and_lost_answers_are_refused() -> None:
    module = CaptionWritingModule(TinyCaptionGenerator())
    with pytest.raises(TypeError, match=r"was given CaptionBatch; expected PromptBatch\. Use a ConceptDataModule"):
        module.predict_step(CaptionBatch((), (), (), (), ()), 0)
    module.generator.generate = lambda prompts, seeds: [Completion("", "stop", 0, 0)]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="TinyCaptionGenerator gave 1 answers to 2 prompts; expected one of each"):
        module.predict_step(BATCH, 0)
