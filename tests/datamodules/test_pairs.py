from collections.abc import Sequence

import numpy as np
import pytest

from synth2_lightning.datamodules.pairs import BatchDataset, PairIndex
from synth2_lightning.types import ImageTextBatch


class NoPairs(BatchDataset):
    def __len__(self) -> int:
        return 0

    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        raise NotImplementedError


def test_every_caption_of_every_image_is_a_pair() -> None:
    index = PairIndex(np.array([2, 1, 0, 3]))

    assert len(index) == 6
    assert index.locate(range(6)) == ([0, 0, 1, 3, 3, 3], [0, 1, 0, 0, 1, 2])
    assert len(PairIndex(np.array([], dtype=np.int64))) == 0


def test_a_single_item_is_refused() -> None:
    with pytest.raises(TypeError, match=r"NoPairs.*3.*`limit`"):
        NoPairs()[3]


def test_images_of_pairs_are_listed_once() -> None:
    assert PairIndex(np.array([2, 1, 0, 3])).images([5, 0, 1, 3]) == [0, 3]


def test_pairs_without_captions_are_named() -> None:
    with pytest.raises(NotImplementedError, match=r"NoPairs.*image_captions"):
        NoPairs().image_captions([0])
