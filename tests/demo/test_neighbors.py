from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from synth2_lightning.datamodules.pairs import BatchDataset
from synth2_lightning.demo import neighbors
from synth2_lightning.demo.neighbors import Neighbors
from synth2_lightning.encoders.vqgan import VQGANTokenizer
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler
from synth2_lightning.types import ImageTextBatch, SampleInfo, VQTokens

NUM = 60


class Pairs(BatchDataset):
    """Two captions for each of thirty images."""

    def __init__(self, codebook: str) -> None:
        ids = torch.randint(0, 16, (NUM // 2, 64, 1), generator=torch.Generator().manual_seed(0))
        self.tokens = VQTokens(ids, codebook)

    def __len__(self) -> int:
        return NUM

    def read(self, indices: Sequence[int]) -> ImageTextBatch:
        rows = [index // 2 for index in indices]
        return ImageTextBatch(
            image=VQTokens(self.tokens.ids[rows], self.tokens.codebook),
            captions=tuple(f"caption {index}" for index in indices),
            samples=tuple(SampleInfo(str(row), "test") for row in rows),
        )


@pytest.mark.parametrize("chunk", [7, 1000])
def test_the_nearest_are_those_of_a_search_in_one_go(
    module: VisionLanguageModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(neighbors, "_CHUNK", chunk)
    tokenizer = module.image_encoder
    assert isinstance(tokenizer, VQGANTokenizer)
    pairs = Pairs(tokenizer.codebook)
    built = Neighbors(module, pairs, tmp_path / "means.bin")
    assert list(built.build(batch_size=25)) == [25, 25, 10]
    assert built.num_images == NUM // 2  # each image once, over the borders of batches, too
    wanted = VQTokens(pairs.tokens.ids[11:12], pairs.tokens.codebook)
    found = built.find(wanted, 4)

    with torch.no_grad():
        means = module.encode_images(pairs.tokens).mean(1)
    centerd = torch.nn.functional.normalize(means - means.mean(0), dim=-1)
    expected = (centerd @ centerd[11]).topk(4)
    assert [each.caption for each in found] == [f"caption {2 * row}" for row in expected.indices.tolist()]
    assert [each.similarity for each in found] == pytest.approx(expected.values.tolist(), abs=5e-3)
    assert found[0].similarity == pytest.approx(1, abs=1e-3)
    assert found[0].image is not None
    decoded = tokenizer.detokenize(wanted).values[0].permute(1, 2, 0)
    assert found[0].image.tobytes() == decoded.numpy().tobytes()


def test_without_a_decoder_there_are_captions_alone(tmp_path: Path) -> None:
    tiny = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder()).eval()
    pairs = Pairs(TinyImageTokenizer.codebook)
    pairs.tokens = VQTokens(pairs.tokens.ids[:, :4], pairs.tokens.codebook)
    built = Neighbors(tiny, pairs, tmp_path / "means.bin")
    assert built.find(pairs.tokens, 3) == []
    assert sum(built.build()) == NUM
    found = built.find(VQTokens(pairs.tokens.ids[:1], pairs.tokens.codebook), 3)
    assert len(found) == 3
    assert all(each.image is None for each in found)
