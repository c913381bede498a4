from unittest.mock import Mock

import pytest

from synth2_lightning.modules.caption_writing import CaptionWritingModule
from synth2_lightning.testing import TinyCaptionGenerator
from synth2_lightning.types import CaptionBatch, ChatMessage, Completion, PromptBatch, SampleInfo

PROMPTS = tuple((ChatMessage("user", word),) for word in ("dog", "oak"))
BATCH = PromptBatch(
    PROMPTS, (SampleInfo("dog-0", "list", "dog", 5), SampleInfo("oak-0", "list", "oak", 7)), ("plain@1",) * 2
)


def test_answers_are_returned_with_their_prompts() -> None:
    written = CaptionWritingModule(TinyCaptionGenerator()).predict_step(BATCH, 0)
    assert written.batch is BATCH
    assert [answer.text for answer in written.completions] == [
        "An image of dog number 5.",
        "An image of oak number 7.",
    ]
    assert written.model == "tiny"


def test_provenance_is_the_generators() -> None:
    assert CaptionWritingModule(TinyCaptionGenerator(salt=3)).provenance() == {
        "generator_class": "TinyCaptionGenerator",
        "salt": 3,
    }


def test_the_language_model_is_loaded_in_configure_model() -> None:
    module = CaptionWritingModule(TinyCaptionGenerator())
    module.generator.load = Mock()  # type: ignore[method-assign]
    module.configure_model()
    module.generator.load.assert_called_once_with()


def test_other_batches_and_missing_answers_are_refused() -> None:
    module = CaptionWritingModule(TinyCaptionGenerator())
    with pytest.raises(TypeError, match=r"CaptionBatch.*PromptBatch.*ConceptDataModule"):
        module.predict_step(CaptionBatch((), (), ()), 0)
    module.generator.generate = lambda prompts, seeds: [Completion("", "stop", 0, 0)]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"TinyCaptionGenerator.* 1 .* 2 prompts"):
        module.predict_step(BATCH, 0)
