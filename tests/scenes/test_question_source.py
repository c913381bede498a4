import numpy as np

from synth2_lightning.datamodules.photos import ImageReader, Photos
from synth2_lightning.scenes.question_source import ScenesQuestionSource
from synth2_lightning.scenes.questions import ask_scene
from synth2_lightning.scenes.source import ScenesSource


def test_images_are_those_of_the_captions_and_questions_go_with_them() -> None:
    source, captioned = ScenesQuestionSource("val", 20), ScenesSource("val", 20)
    assert np.array_equal(np.asarray(source.image(3)), np.asarray(captioned.image(3)))
    assert source.key(3) == captioned.key(3)
    question = ask_scene(captioned.scene(3))
    assert source.prompt(3) == question.text
    assert source.captions(3) == (question.answer,) * 10


def test_a_batch_carries_questions_and_accepted_answers() -> None:
    source = ScenesQuestionSource("held_out", 4)
    batch = Photos(ImageReader(source, 64, 1))[[0, 2]]
    assert batch.prompts == (source.prompt(0), source.prompt(2))
    assert batch.references == (source.captions(0), source.captions(2))
    assert batch.captions == (source.captions(0)[0], source.captions(2)[0])


def test_evaluation_splits_are_not_trained_on() -> None:
    assert not ScenesQuestionSource("train", 4).is_evaluation
    assert ScenesQuestionSource("held_out", 4).is_evaluation
