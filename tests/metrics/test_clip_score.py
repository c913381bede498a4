import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from synth2_lightning.encoders.open_clip import OpenClipImageTextEncoder
from synth2_lightning.interfaces import ImageTextEncoder
from synth2_lightning.metrics.clip_score import ClipScore, RefClipScore, clip_scores, ref_clip_scores
from synth2_lightning.testing import TinyImageTextEncoder, tiny_batch
from synth2_lightning.types import Pixels

CAPTIONS = ["a red circle", "two small green squares", "a ring", "a dog on a lawn"]
REFERENCES = [["one red circle", "a circle"], ["green squares"], ["a blue ring", "rings", "a circle"], ["a cat"]]
KEYS = ["d", "a", "c", "b"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> OpenClipImageTextEncoder:
    folder = tmp_path_factory.mktemp("architectures")
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 48, "patch_size": 8, "head_width": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (folder / "score-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    path = folder / "weights.safetensors"
    save_file(open_clip.create_model("score-clip").state_dict(), path)
    encoder = OpenClipImageTextEncoder("score-clip", str(path))
    encoder.load()
    return encoder


def random_pixels(count: int = 4) -> Pixels:
    return Pixels(torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(1)))


def plain_vectors(values: Sequence[Sequence[float]]) -> Mock:
    """Return an encoder of the given unit vectors: of the texts "0", "1", ..., and, the last one, of the only image."""
    vectors = torch.tensor(values)
    encoder = Mock(spec=ImageTextEncoder)
    encoder.embed_images.return_value = vectors[-1:]
    encoder.embed_texts.side_effect = lambda texts: vectors[[int(text) for text in texts]]
    return encoder


def by_hand(encoder: OpenClipImageTextEncoder, pixels: Pixels, prefix: str) -> list[tuple[float, float]]:
    """Return scores by the paper's formulas, one image at a time, with open_clip's own towers."""
    network, split = encoder.network, open_clip.get_tokenizer("score-clip")
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    scores = []
    for values, caption, references in zip(pixels.values, CAPTIONS, REFERENCES, strict=True):
        image = network.encode_image(((values / 255 - mean) / std)[None])[0]  # type: ignore[union-attr]
        text, *people = network.encode_text(split([prefix + each for each in [caption, *references]]))  # type: ignore[union-attr]
        cosine = (image @ text / image.norm() / text.norm()).item()
        nearest = max((text @ each / text.norm() / each.norm()).item() for each in people)
        clip, people_score = 2.5 * max(cosine, 0.0), max(nearest, 0.0)
        both = clip > 0 and people_score > 0
        scores.append((clip, 2 / (1 / clip + 1 / people_score) if both else 0.0))
    return scores


@pytest.mark.parametrize("prefix", ["A photo depicts ", ""])
def test_scores_equal_the_papers_formulas_with_open_clip(encoder: OpenClipImageTextEncoder, prefix: str) -> None:
    expected = by_hand(encoder, random_pixels(), prefix)
    scores = ref_clip_scores(encoder, random_pixels(), CAPTIONS, REFERENCES, prefix)
    assert scores.clip_scores.tolist() == pytest.approx([clip for clip, _ in expected], abs=1e-5)
    assert scores.ref_clip_scores.tolist() == pytest.approx([both for _, both in expected], abs=1e-5)
    assert clip_scores(encoder, random_pixels(), CAPTIONS, prefix).tolist() == scores.clip_scores.tolist()
    assert max(scores.clip_scores) > 0


def test_the_papers_prefix_is_the_default(encoder: OpenClipImageTextEncoder) -> None:
    default = clip_scores(encoder, random_pixels(), CAPTIONS)
    assert default.tolist() == clip_scores(encoder, random_pixels(), CAPTIONS, "A photo depicts ").tolist()
    assert default.tolist() != clip_scores(encoder, random_pixels(), CAPTIONS, "").tolist()


def test_the_nearest_reference_counts() -> None:
    encoder = plain_vectors([[0.6, 0.8], [0.8, 0.6], [-1.0, 0.0], [1.0, 0.0]])
    scores = ref_clip_scores(encoder, random_pixels(1), ["0"], [["2", "1"]], prefix="")
    assert scores.clip_scores.item() == pytest.approx(2.5 * 0.6)
    assert scores.ref_clip_scores.item() == pytest.approx(2 * 1.5 * 0.96 / (1.5 + 0.96))


@pytest.mark.parametrize(("reference", "image"), [([-1.0, 0.0], [-1.0, 0.0]), ([-1.0, 0.0], [1.0, 0.0])])
def test_negative_cosines_count_as_zero(reference: list[float], image: list[float]) -> None:
    scores = ref_clip_scores(plain_vectors([[1.0, 0.0], reference, image]), random_pixels(1), ["0"], [["1"]], "")
    assert scores.clip_scores.tolist() == [2.5 * max(image[0], 0.0)]
    assert scores.ref_clip_scores.tolist() == [0.0]


def test_metrics_are_means_independent_of_repeats_order_and_batches(
    encoder: OpenClipImageTextEncoder,
) -> None:
    pixels, expected = random_pixels(), ref_clip_scores(encoder, random_pixels(), CAPTIONS, REFERENCES)
    alone, both = ClipScore(encoder), RefClipScore(encoder)
    for index in [2, 0, 3, 1, 2, 2]:
        image = Pixels(pixels.values[index : index + 1])
        alone.update([KEYS[index]], image, [CAPTIONS[index]])
        both.update([KEYS[index]], image, [CAPTIONS[index]], [REFERENCES[index]])
    assert alone.compute().item() == pytest.approx(expected.clip_scores.mean().item(), abs=1e-6)
    computed = both.compute()
    assert computed["clip_score"] == alone.compute()
    assert computed["ref_clip_score"].item() == pytest.approx(expected.ref_clip_scores.mean().item(), abs=1e-6)


def test_no_images_and_duplicate_keys_are_refused(encoder: OpenClipImageTextEncoder) -> None:
    both = RefClipScore(encoder)
    both.update([], random_pixels(0), [], [])
    with pytest.raises(ValueError, match=r"RefClipScore.*update\(\)"):
        both.compute()
    metric = ClipScore(TinyImageTextEncoder())
    metric.update([], random_pixels(0), [])
    with pytest.raises(ValueError, match=r"ClipScore.*update\(\)"):
        metric.compute()
    metric.update(["1", "1"], random_pixels(2), ["a field", "a field"])
    with pytest.raises(ValueError, match=r"key '1'.*pixels differ"):
        metric.compute()


@pytest.mark.slow  # interpreters that each import torch and torchmetrics
@pytest.mark.parametrize("size", [1, 2, 4])
def test_scores_are_the_same_on_any_number_of_ranks(size: int, tmp_path: Path) -> None:
    batch = tiny_batch(8)
    assert isinstance(batch.image, Pixels)
    metric = RefClipScore(TinyImageTextEncoder())
    metric.update(batch.keys, batch.image, batch.captions, batch.references)
    both = {name: value.item() for name, value in metric.compute().items()}
    expected = [both["clip_score"], both]
    script = Path(__file__).parent / "clip_score_rank.py"
    commands = [[sys.executable, script, str(rank), str(size), tmp_path / "store"] for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        outputs = list(pool.map(subprocess.check_output, commands))
    assert [json.loads(output) for output in outputs] == [expected] * size


def test_columns_of_different_lengths_are_refused() -> None:
    encoder, pixels = TinyImageTextEncoder(), random_pixels(2)
    with pytest.raises(ValueError, match=r"clip_scores.* 2 .* 1 captions"):
        clip_scores(encoder, pixels, ["a"])
    with pytest.raises(ValueError, match=r"ref_clip_scores.* 2 .* 2 captions.* 0 references"):
        ref_clip_scores(encoder, pixels, ["a", "b"], [])
    with pytest.raises(ValueError, match=r"ClipScore.* 2 .* 1 keys.* 2 hypotheses"):
        ClipScore(encoder).update(["1"], pixels, ["a", "b"])
    with pytest.raises(ValueError, match=r"RefClipScore.* 2 .* 2 keys.* 2 hypotheses.* 1 references"):
        RefClipScore(encoder).update(["1", "2"], pixels, ["a", "b"], [["a"]])


def test_an_image_without_references_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'0'.*references \[\]"):
        ref_clip_scores(TinyImageTextEncoder(), random_pixels(1), ["a"], [[]])
    with pytest.raises(ValueError, match=r"'x'.*references 'a dog'"):
        RefClipScore(TinyImageTextEncoder()).update(["x"], random_pixels(1), ["a"], ["a dog"])


def test_pixels_and_embeddings_are_not_kept(encoder: OpenClipImageTextEncoder) -> None:
    metric = RefClipScore(encoder)
    metric.update(KEYS, random_pixels(), CAPTIONS, REFERENCES)
    assert [[type(value) for value in row] for row in metric.rows] == [[str, str, float, float]] * 4


def test_an_encoder_without_weights_raises(tmp_path: Path) -> None:
    metric = ClipScore(OpenClipImageTextEncoder("ViT-B-32", str(tmp_path / "x.pt")))
    with pytest.raises(RuntimeError, match=r"'ViT-B-32'.*load\(\)"):
        metric.update(["1"], random_pixels(1), ["a"])
