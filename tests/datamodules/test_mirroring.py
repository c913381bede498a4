from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synth2_lightning.datamodules.fraction import ConstantFraction
from synth2_lightning.datamodules.mirroring import MirroredPairs, Mirroring
from synth2_lightning.datamodules.mixed import MixedDataModule
from synth2_lightning.datamodules.pairs import BatchDataset
from synth2_lightning.datamodules.real import RealDataModule
from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.sources.folder import FolderSource
from synth2_lightning.types import ImageInput, ImageTextBatch, MixedImages, Pixels, SampleInfo, VQTokens

PIXELS = Pixels(torch.arange(2 * 3 * 2 * 4, dtype=torch.uint8).view(2, 3, 2, 4))
GRIDS = VQTokens(torch.arange(2 * 9 * 2).view(2, 9, 2), "tiny-64x2:00000000")
COLUMNS_SWAPPED = [2, 1, 0, 5, 4, 3, 8, 7, 6]


def make_batch(image: ImageInput, *captions: str, prompts: tuple[str, ...] = ()) -> ImageTextBatch:
    samples = tuple(SampleInfo(str(row), "tiny") for row in range(len(captions)))
    return ImageTextBatch(image, captions, samples, prompts=prompts)


def mirror(batch: ImageTextBatch, *rows: bool) -> ImageTextBatch:
    return Mirroring().mirror(batch, torch.tensor(rows))


def test_the_columns_of_a_token_grid_change_places() -> None:
    image = mirror(make_batch(GRIDS, "a dog", "a cat"), False, True).image
    assert isinstance(image, VQTokens)
    assert image.codebook == GRIDS.codebook
    assert torch.equal(image.ids[0], GRIDS.ids[0])
    assert torch.equal(image.ids[1], GRIDS.ids[1, COLUMNS_SWAPPED])


def test_pixels_are_mirrored() -> None:
    image = mirror(make_batch(PIXELS, "a dog", "a cat"), True, False).image
    assert isinstance(image, Pixels)
    assert np.array_equal(image.values[0].numpy(), PIXELS.values[0].numpy()[:, :, ::-1])
    assert torch.equal(image.values[1], PIXELS.values[1])


def test_rows_of_mixed_images_are_those_of_the_parts_in_order() -> None:
    image = mirror(make_batch(MixedImages((PIXELS, GRIDS)), *["a dog"] * 4), False, True, True, False).image
    assert isinstance(image, MixedImages)
    pixels, grids = image.parts
    assert isinstance(pixels, Pixels)
    assert isinstance(grids, VQTokens)
    assert torch.equal(pixels.values, torch.stack([PIXELS.values[0], PIXELS.values[1].flip(2)]))
    assert torch.equal(grids.ids, torch.stack([GRIDS.ids[0, COLUMNS_SWAPPED], GRIDS.ids[1]]))


def test_an_image_is_left_as_it_is_if_another_caption_of_it_depends_on_the_side() -> None:
    batch = replace(make_batch(GRIDS, "a dog", "a cat"), references=(("a dog", "a dog on the left"), ("a cat",)))
    image = mirror(batch, True, True).image
    assert isinstance(image, VQTokens)
    assert torch.equal(image.ids[0], GRIDS.ids[0])
    assert torch.equal(image.ids[1], GRIDS.ids[1, COLUMNS_SWAPPED])


@pytest.mark.parametrize(
    ("caption", "prompt", "is_mirrored"),
    [
        ("a brightly lit copyright sign", "", True),
        ("a dog on the Left.", "", False),
        ("a right-hand drive car", "", False),
        ("the leftmost child", "", False),
        ("no", "is the dog right of the cat?", False),
        ("top", "where is the dog?", True),
    ],
)
def test_images_whose_text_depends_on_the_side_stay(caption: str, prompt: str, is_mirrored: bool) -> None:
    batch = make_batch(GRIDS, caption, "a cat", prompts=(prompt, "") if prompt else ())
    image = mirror(batch, True, True).image
    assert isinstance(image, VQTokens)
    assert torch.equal(image.ids[0], GRIDS.ids[0]) != is_mirrored
    assert torch.equal(image.ids[1], GRIDS.ids[1, COLUMNS_SWAPPED])


def test_words_of_another_language_can_be_named() -> None:
    batch = make_batch(GRIDS, "ein Hund links", "left over")
    image = Mirroring(words=["links", "rechts"]).mirror(batch, torch.tensor([True, True])).image
    assert isinstance(image, VQTokens)
    assert torch.equal(image.ids[0], GRIDS.ids[0])
    assert torch.equal(image.ids[1], GRIDS.ids[1, COLUMNS_SWAPPED])


def test_tokens_without_a_square_grid_are_refused() -> None:
    tokens = VQTokens(torch.zeros(1, 8, 1, dtype=torch.long), "tiny-64:00000000")
    with pytest.raises(ValueError, match=r"tiny-64:00000000.*8 tokens.*square.*mirroring"):
        mirror(make_batch(tokens, "a dog"), True)


class Grids(BatchDataset):
    """Dataset of two token grids."""

    def __len__(self) -> int:
        return 2

    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        tokens = VQTokens(GRIDS.ids[list(indices)], GRIDS.codebook)
        return make_batch(tokens, *(f"caption {index}" for index in indices))


def test_items_of_the_second_half_are_mirrored() -> None:
    pairs = MirroredPairs(Grids(), Mirroring())
    batch = pairs.read([3, 0, 2])
    assert (len(pairs), pairs.num_variants) == (4, 2)
    assert batch.captions == ("caption 1", "caption 0", "caption 0")
    assert isinstance(batch.image, VQTokens)
    expected = [GRIDS.ids[1, COLUMNS_SWAPPED], GRIDS.ids[0], GRIDS.ids[0, COLUMNS_SWAPPED]]
    assert torch.equal(batch.image.ids, torch.stack(expected))
    assert pairs.fingerprint() == "2, mirrored without left|right"


def make_photos(folder: Path) -> FolderSource:
    """Return photos with a white right half; the last one's caption names the side."""
    folder.mkdir()
    for number in range(6):
        image = Image.new("L", (8, 8), 0)
        image.paste(255, (4, 0, 8, 8))
        image.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("white on the right" if number == 5 else "half white")
    return FolderSource(str(folder), "halves")


def read_epochs(mirroring: Mirroring | None, photos: FolderSource, num_epochs: int) -> list[tuple[str, bool]]:
    """Return the key of each training image, and whether its white half is on the left."""
    data = RealDataModule(train=photos, image_size=8, batch_size=3, num_workers=0, mirroring=mirroring)
    data.setup("fit")
    assert data.fingerprint()["num_pairs"] == 6
    loader = data.train_dataloader()
    assert len(loader) == 2
    found = []
    for _ in range(num_epochs):
        for batch in loader:
            assert isinstance(batch.image, Pixels)
            is_left = (batch.image.values[:, 0, 0, 0] == 255).tolist()
            found += list(zip(batch.keys, is_left, strict=True))
    return found


def test_a_datamodule_mirrors_half_of_its_photos_in_the_same_order(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    plain, mirrored = (read_epochs(each, photos, num_epochs=20) for each in (None, Mirroring()))
    assert [key for key, _ in plain] == [key for key, _ in mirrored]
    assert not any(is_left for _, is_left in plain)
    by_key = {key: [is_left for other, is_left in mirrored if other == key] for key, _ in plain}
    sides = by_key.pop("5")
    assert not any(sides)
    assert all(2 < sum(sides) < 18 for sides in by_key.values())


def test_mixed_batches_are_mirrored_in_both_parts(tmp_path: Path, make_shards: object) -> None:
    assert callable(make_shards)
    real = RealDataModule(train=make_photos(tmp_path / "photos"), image_size=8, num_workers=0)
    synthetic = SyntheticDataModule(make_shards(10))
    data = MixedDataModule(real, synthetic, 4, ConstantFraction(0.5), num_workers=0, mirroring=Mirroring())
    data.setup("fit")
    assert data.count_train_pairs() == (6, 10)
    assert data.count_variants() == (2, 2)
    assert len(data.train_pairs) == 32
    assert data.training_captions()[:7] == [*[("half white",)] * 5, ("white on the right",), ("synthetic 0",)]
    assert len(data.training_captions()) == 16
    batch = data.train_pairs.read([0, 6, 12, 22])  # each pair, and its mirror image
    assert batch.sources == ("halves", "halves", "synthetic", "synthetic")
    assert batch.keys == ("0", "0", "s0", "s0")
    assert len(data.train_dataloader()) == 4
