from collections.abc import Sequence
from typing import Any

import pytest

from synth2_lightning.datamodules.language_modeling import LanguageModelingDataModule
from synth2_lightning.interfaces import CaptionSource
from synth2_lightning.types import CaptionRecord, ConceptCaptionBatch

TEXTS = ("A dog runs on grass .", "Two children play with a red ball .", "Nobody .")


class Captions(CaptionSource):
    name = "captions"

    def __init__(self, numbers: Sequence[int], names_images: bool = True) -> None:
        self.numbers = numbers
        self.names_images = names_images

    def __len__(self) -> int:
        return 3 * len(self.numbers)

    def record(self, index: int) -> CaptionRecord:
        number = self.numbers[index // 3]
        image_id = f"photo{number}" if self.names_images else ""
        return CaptionRecord(f"{number}-{index % 3}", TEXTS[index % 3], image_id=image_id)


def make(captions: CaptionSource | None = None, **settings: Any) -> LanguageModelingDataModule:
    captions = Captions(range(20)) if captions is None else captions
    data = LanguageModelingDataModule(captions, **{"batch_size": 5} | settings)
    data.setup("fit")
    return data


def held_out(data: LanguageModelingDataModule) -> list[str]:
    return [key for batch in data.val_dataloader() for key in batch.keys]


def trained(data: LanguageModelingDataModule) -> list[str]:
    pairs = data.train_pairs
    return list(pairs[list(range(len(pairs)))].keys)


def test_a_batch_has_captions_and_their_concepts() -> None:
    batch = make().train_pairs[[0, 1, 2]]
    assert isinstance(batch, ConceptCaptionBatch)
    assert batch.captions == TEXTS
    names = [[concept.name for concept in concepts] for concepts in batch.concepts]
    assert names == [["dog", "grass"], ["child", "ball"], []]
    assert {sample.source for sample in batch.samples} == {"captions"}


def test_all_captions_of_an_image_are_held_out_or_none() -> None:
    data = make(val_fraction=0.25)
    out, rest = set(held_out(data)), set(trained(data))
    assert (len(out), len(rest)) == (15, 45)
    assert not {key.split("-")[0] for key in out} & {key.split("-")[0] for key in rest}


def test_without_image_ids_single_captions_are_held_out() -> None:
    data = make(Captions(range(20), names_images=False), val_fraction=0.25)
    assert len(held_out(data)) == 15
    assert len({key.split("-")[0] for key in held_out(data)} & {key.split("-")[0] for key in trained(data)}) > 3


def test_the_same_images_are_held_out_in_any_order() -> None:
    assert set(held_out(make())) == set(held_out(make(Captions(range(19, -1, -1)))))


@pytest.mark.parametrize(("fraction", "num_images"), [(0.001, 1), (0.999, 19)])
def test_no_side_is_empty(fraction: float, num_images: int) -> None:
    data = make(val_fraction=fraction)
    assert len(held_out(data)) == 3 * num_images
    assert len(trained(data)) == 60 - 3 * num_images


def test_a_resumed_run_has_the_batches_that_were_left() -> None:
    whole, half, rest = make(), make(), make()
    expected = [batch.keys for _ in range(2) for batch in whole.train_dataloader()]
    loader = iter(half.train_dataloader())
    begun = [next(loader).keys for _ in range(4)]
    rest.load_state_dict(half.state_dict())
    resumed = [batch.keys for batch in rest.train_dataloader()]
    assert len(expected) == 20
    assert begun + resumed == expected[: 4 + len(resumed)]
    assert rest.fingerprint() == whole.fingerprint()


def test_the_fingerprint_follows_the_captions() -> None:
    assert make().fingerprint() != make(Captions(range(1, 21))).fingerprint()
    assert make().fingerprint() != make(val_fraction=0.5).fingerprint()


class Evaluation(Captions):
    is_evaluation = True


@pytest.mark.parametrize(
    ("captions", "settings", "message"),
    [
        (Evaluation([1, 2]), {}, r"'captions'.*evaluation split"),
        (Captions([1]), {}, r"The 3 captions of 'captions' are of 1 images \['photo1'\]"),
        (Captions([]), {}, r"The 0 captions of 'captions' are of 0 images"),
        (Captions([1, 2]), {"val_batch_size": 0}, r"val_batch_size=0"),
        (Captions([1, 2]), {"val_fraction": 0.0}, r"val_fraction=0\.0"),
    ],
)
def test_captions_that_cannot_be_divided_are_refused(
    captions: CaptionSource, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(captions, **settings)


def test_there_is_nothing_to_predict() -> None:
    with pytest.raises(ValueError, match=r"'predict'.*synth2 fit.*ConceptDataModule"):
        LanguageModelingDataModule(Captions([1, 2])).setup("predict")
