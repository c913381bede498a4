from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from synth2_lightning.datamodules.photos import ImageReader, PhotoPairs, Photos
from synth2_lightning.sources.folder import FolderSource
from synth2_lightning.sources.images import center_crop
from synth2_lightning.types import Pixels

MakeSource = Callable[..., FolderSource]


@pytest.mark.parametrize("size", [(50, 31), (31, 50), (33, 64), (48, 49), (24, 24), (7, 300)])
def test_pixels_are_those_of_open_clip(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    reference = Compose([Resize(24, InterpolationMode.BICUBIC), CenterCrop(24)])

    assert np.array_equal(np.asarray(center_crop(image, 24)), np.asarray(reference(image)))


def test_images_of_that_size_are_untouched() -> None:
    image = Image.new("RGB", (24, 24))

    assert center_crop(image, 24) is image


def read(source: FolderSource, image_size: int = 8, max_bad_images: int = 10) -> ImageReader:
    source.load()
    return ImageReader(source, image_size, max_bad_images)


def grays(pixels: object) -> list[int]:
    assert isinstance(pixels, Pixels)
    assert torch.equal(pixels.values.amin((1, 2, 3)), pixels.values.amax((1, 2, 3)))
    return pixels.values[:, 0, 0, 0].tolist()


def test_every_caption_is_a_pair(make_source: MakeSource) -> None:
    pairs = PhotoPairs(read(make_source(3), image_size=4))
    batch = pairs[[0, 1, 5]]

    assert len(pairs) == 6
    assert batch.captions == ("caption 0 of 000", "caption 1 of 000", "caption 1 of 002")
    assert batch.keys == ("000", "000", "002")
    assert batch.sources == ("real",) * 3
    assert batch.references == (
        ("caption 0 of 000", "caption 1 of 000"),
        ("caption 0 of 000", "caption 1 of 000"),
        ("caption 0 of 002", "caption 1 of 002"),
    )
    assert batch.skipped == ()
    assert grays(batch.image) == [0, 0, 2]
    assert batch.image.values.shape == (3, 3, 4, 4)  # type: ignore[union-attr]


def test_a_bad_image_is_replaced_by_its_successor_and_named(make_source: MakeSource) -> None:
    pairs = PhotoPairs(read(make_source(4, bad=[1, 3])))
    batch = pairs[[3, 7, 2]]

    assert batch.keys == ("002", "000", "002")
    assert batch.captions == ("caption 1 of 002", "caption 1 of 000", "caption 0 of 002")
    assert grays(batch.image) == [2, 0, 2]
    assert [name.split(": ")[0] for name in batch.skipped] == ["real/001", "real/003"]
    assert "UnidentifiedImageError" in batch.skipped[0]


def test_evaluation_reads_images_with_all_captions(make_source: MakeSource) -> None:
    photos = Photos(read(make_source(3)))
    batch = photos[[0, 2]]

    assert len(photos) == 3
    assert batch.captions == ("caption 0 of 000", "caption 0 of 002")
    assert batch.references == (
        ("caption 0 of 000", "caption 1 of 000"),
        ("caption 0 of 002", "caption 1 of 002"),
    )


def test_evaluation_replaces_within_the_batch_so_that_no_key_is_stolen_from_another(make_source: MakeSource) -> None:
    photos = Photos(read(make_source(5, bad=[1, 2])))

    assert photos[[0, 1]].keys == ("000", "000")
    assert photos[[1, 2]].keys == ("003", "003")
    assert photos[[1, 2]].skipped == photos[[1, 2, 1]].skipped
    assert len(photos[[1, 2]].skipped) == 2


def test_too_many_bad_images_are_refused_in_the_worker(make_source: MakeSource) -> None:
    pairs = PhotoPairs(read(make_source(5, bad=range(4)), max_bad_images=2))

    with pytest.raises(ValueError, match=r"^3 .*could not be read.*=2"):
        pairs[[0]]


def test_a_source_without_any_image_is_refused(make_source: MakeSource) -> None:
    pairs = PhotoPairs(read(make_source(2, bad=range(2))))

    with pytest.raises(ValueError, match=r"None of the 2.*'real'.*real/000"):
        pairs[[0]]


class AskingSource(FolderSource):
    """Source with a question about every image except those in ``silent``."""

    silent: tuple[str, ...] = ()

    def prompt(self, index: int) -> str | None:
        return None if self.key(index) in self.silent else f"what is {self.key(index)}?"


def asking(source: FolderSource, silent: tuple[str, ...] = ()) -> AskingSource:
    asking = AskingSource(source.images, source.name)
    asking.silent = silent
    return asking


@pytest.mark.parametrize("kind", [PhotoPairs, Photos])
def test_questions_go_with_the_image_that_took_the_place_of_a_bad_one(
    make_source: MakeSource, kind: type[PhotoPairs] | type[Photos]
) -> None:
    batch = kind(read(asking(make_source(3, num_captions=1, bad=[1]))))[[0, 1]]

    assert batch.keys[0] == "000"
    assert batch.prompts == tuple(f"what is {key}?" for key in batch.keys)


def test_images_without_questions_have_no_prompts(make_source: MakeSource) -> None:
    assert Photos(read(make_source(2)))[[0, 1]].prompts == ()


def test_a_source_with_questions_for_some_images_only_is_refused(make_source: MakeSource) -> None:
    with pytest.raises(ValueError, match=r"'real'.*1 of 2.*'001'"):
        Photos(read(asking(make_source(2), silent=("001",))))[[0, 1]]
