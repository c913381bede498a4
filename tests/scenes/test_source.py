from time import process_time

import numpy as np
import pytest

from synth2_lightning.scenes.question_source import ScenesQuestionSource
from synth2_lightning.scenes.source import ScenesSource
from synth2_lightning.scenes.world import Split


def test_images_captions_and_keys_belong_together() -> None:
    source = ScenesSource("val", num_images=20)
    source.load()
    source.load()
    assert len(source) == 20
    assert source.name == "scenes"
    assert source.key(17) == "scenes-val-000017"
    assert len(source.captions(3)) == 5
    assert source.image(3).size == (64, 64)
    assert source.image(3).mode == "RGB"


def test_the_first_images_do_not_depend_on_how_many_there_are() -> None:
    few, many = ScenesSource("train", 5), ScenesSource("train", 50)
    assert few.captions(4) == many.captions(4)
    assert np.array_equal(np.asarray(few.image(4)), np.asarray(many.image(4)))


def test_splits_and_seeds_differ() -> None:
    sources = [ScenesSource("train", 20), ScenesSource("val", 20), ScenesSource("test", 20), ScenesSource("val", 20, 1)]
    assert len({tuple(source.captions(index) for index in range(20)) for source in sources}) == 4


@pytest.mark.parametrize(
    ("split", "seed", "expected"), [("train", 0, False), ("val", 0, True), ("test", 0, True), ("val", 1, False)]
)
def test_scores_are_measured_in_the_world_of_seed_0(split: Split, seed: int, expected: bool) -> None:
    assert ScenesSource(split, 1, seed).is_evaluation is expected


def test_drawing_keeps_up_with_training() -> None:
    source = ScenesSource("train", 100)
    start = process_time()
    for index in range(100):
        source.image(index)
        source.captions(index)
    assert process_time() - start < 1.0  # 0.2 ms an image on an idle core; the rest is for slow machines


@pytest.mark.parametrize("index", [-1, 5])
def test_images_that_do_not_exist_are_refused(index: int) -> None:
    with pytest.raises(IndexError, match=f"{index}.*0 to 4"):
        ScenesSource("train", 5).image(index)


def test_empty_sources_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_\w+.*\b0\b"):
        ScenesSource("train", 0)


@pytest.mark.parametrize("source", [ScenesSource("train", 200), ScenesQuestionSource("train", 200)])
def test_captions_are_counted_without_making_them(source: ScenesSource) -> None:
    assert source.count_captions().tolist() == [len(source.captions(index)) for index in range(200)]
