import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from synth2_lightning.cli import main
from synth2_lightning.metrics.clip_score import ref_clip_scores
from synth2_lightning.metrics.document_frequencies import count_document_frequencies
from synth2_lightning.reports.clip_scores import ImageFolder
from synth2_lightning.reports.predictions import image_ids, join_predictions, read_predictions, read_references
from synth2_lightning.reports.scores import score_captions, score_predictions
from synth2_lightning.shards.image_captions import ImageCaptionFile, format_of
from synth2_lightning.testing import TinyImageTextEncoder
from synth2_lightning.types import Pixels

REFERENCES = {
    "1": ["a red dog runs on grass", "a dog runs"],
    "2": ["two blue squares", "two squares on a wall"],
    "3": ["a man rides a horse", "a rider on his horse"],
}
PREDICTIONS = {"1": "A red dog runs.", "2": "two squares", "3": "a man on a horse"}


def write(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def results(predictions: dict[str, str]) -> list[dict[str, Any]]:
    return [{"image_id": int(key), "caption": caption} for key, caption in predictions.items()]


@pytest.fixture
def references(tmp_path: Path) -> str:
    annotations = [{"image_id": int(key), "caption": text} for key, texts in REFERENCES.items() for text in texts]
    return write(tmp_path / "references.json", {"images": [], "annotations": annotations})


def test_command_shows_scores_and_writes_the_card(
    tmp_path: Path, references: str, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = write(tmp_path / "predictions.json", results(PREDICTIONS))
    main(["score", predictions, references, "--out", str(tmp_path / "card.json")])
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["scores"] == pytest.approx(score_captions(PREDICTIONS, REFERENCES))
    assert (card["num_images"], card["num_references"], card["num_empty_captions"]) == (3, 6, 0)
    assert card["missing"] == {"count": 0, "treated": "error"}
    assert len(card["predictions"]["sha256"]) == 64
    printed = capsys.readouterr().out
    assert "CIDEr-D" in printed
    assert f"{100 * card['scores']['BLEU-4']:.1f}" in printed


def test_an_input_is_not_replaced_by_the_card(tmp_path: Path) -> None:
    captions, references = tmp_path / "a.json", tmp_path / "b.json"
    for out, error in ((captions, FileExistsError), (references, FileExistsError), (tmp_path, IsADirectoryError)):
        with pytest.raises(error, match=r"The output .*expected"):
            score_predictions(str(captions), str(references), out)
    captions.touch()
    with pytest.raises(NotADirectoryError, match=r"a\.json, which is a file"):
        score_predictions(str(captions), str(references), captions / "card.json")


def test_json_lines_of_predictions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"key": "1", "caption": "a dog", "cider": 0.5}\n', encoding="utf-8")
    assert read_predictions(str(path), "") == [("1", "a dog")]


@pytest.mark.parametrize("name", ["captions.jsonl", "captions.csv"])
def test_captions_of_image_paths_get_the_ids_of_their_file_names(tmp_path: Path, name: str) -> None:
    images = [{"id": 7, "file_name": "b.png"}, {"id": 8, "file_name": "ward/b.png"}]
    references = write(tmp_path / "references.json", {"images": images, "annotations": []})
    with ImageCaptionFile(tmp_path / name, format_of(Path(name)), {}) as file:
        file.append([("photos/ward/b.png", "a man"), ("/disk/b.png", "a dog"), ("photos/c.png", "a cat")])
    assert read_predictions(str(tmp_path / name), references) == [
        ("8", "a man"),
        ("7", "a dog"),
        ("photos/c.png", "a cat"),
    ]


def test_equal_file_names_of_two_images_are_refused(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "b.png"}, {"id": 8, "file_name": "b.png"}]
    references = write(tmp_path / "references.json", {"images": images, "annotations": []})
    with pytest.raises(ValueError, match=r"'b\.png'.*\b7\b.*\b8\b"):
        image_ids(["b.png"], references)


def test_images_of_a_command_need_one_id_each(tmp_path: Path) -> None:
    references = write(tmp_path / "references.json", {"images": [{"id": 7, "file_name": "b.png"}], "annotations": []})
    assert image_ids(["x/b.png"], references) == {"x/b.png": 7}
    with pytest.raises(ValueError, match=r"x/c\.png.*'b\.png'"):
        image_ids(["x/c.png"], references)
    with pytest.raises(ValueError, match=r"x/b\.png.*y/b\.png.*\b7\b"):
        image_ids(["x/b.png", "y/b.png"], references)


def test_mismatched_ids_are_counted_and_named() -> None:
    predictions = [("1", "a"), ("1", "b"), ("9", "c"), ("8", "d"), ("7", "e"), ("6", "f")]
    with pytest.raises(ValueError, match="references") as error:
        join_predictions(predictions, REFERENCES)
    assert re.search(r"\b1 id\(s\) \(1\).*--duplicates", str(error.value))
    assert "4 id(s) (9, 8, 7, and others)" in str(error.value)
    assert "2 id(s) (2, 3)" in str(error.value)


def test_mismatched_ids_are_treated_by_option() -> None:
    predictions = [("1", "a"), ("1", "b"), ("9", "c")]
    empty = join_predictions(predictions, REFERENCES, missing="empty", unknown="skip", duplicates="first")
    assert empty.hypotheses == {"1": "a", "2": "", "3": ""}
    assert (empty.num_missing, empty.num_unknown, empty.num_duplicates) == (2, 1, 1)
    skipped = join_predictions(predictions, REFERENCES, missing="skip", unknown="skip", duplicates="last")
    assert skipped.hypotheses == {"1": "b"}
    assert skipped.references == {"1": REFERENCES["1"]}
    with pytest.raises(ValueError, match=r"\b1 predicted ids?\b.*\b3\b"):
        join_predictions([("9", "c")], REFERENCES, missing="skip", unknown="skip")


def test_malformed_files_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("[{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.json.*JSON"):
        read_predictions(str(broken), "")
    with pytest.raises(ValueError, match=r"a\.json.*\bdict\b.*COCO results"):
        read_predictions(write(tmp_path / "a.json", {"1": "a dog"}), "")
    with pytest.raises(ValueError, match=r"b\.json.*record 1\b.*\b1\b.*None"):
        read_predictions(write(tmp_path / "b.json", [{"image_id": 1}]), "")
    with pytest.raises(ValueError, match=r"c\.json.*annotation"):
        read_references(write(tmp_path / "c.json", {"annotations": []}))


def test_stored_frequencies_and_those_of_a_captions_file_are_the_same(tmp_path: Path, references: str) -> None:
    predictions = write(tmp_path / "predictions.json", results(PREDICTIONS))
    count_document_frequencies(REFERENCES).save(tmp_path / "frequencies.parquet")
    stored, counted = (
        score_predictions(predictions, references, document_frequencies=location)["scores"]
        for location in (str(tmp_path / "frequencies.parquet"), references)
    )
    assert stored == counted
    with pytest.raises(ValueError, match=r"--compare_java.*--document_frequencies"):
        score_predictions(predictions, references, document_frequencies=references, compare_java=True)


def test_a_card_that_cannot_be_written_names_the_path(tmp_path: Path, references: str) -> None:
    predictions = write(tmp_path / "predictions.json", results(PREDICTIONS))
    with pytest.raises(OSError, match=r"card\.json.*[Ee]xpected a folder"):
        score_predictions(predictions, references, out=tmp_path / "predictions.json" / "card.json")


GRAYS = {"1": 255, "2": 128, "3": 10}


@pytest.fixture
def images(tmp_path: Path) -> str:
    """References that name files, and the files: of three grays and two sizes."""
    (tmp_path / "images").mkdir()
    for key, gray in GRAYS.items():
        Image.new("RGB", (8, 8 + (key == "3")), (gray,) * 3).save(tmp_path / "images" / f"{key}.png")
    images = [{"id": int(key), "file_name": f"{key}.png"} for key in GRAYS]
    annotations = [{"image_id": int(key), "caption": text} for key, texts in REFERENCES.items() for text in texts]
    return write(tmp_path / "named.json", {"images": images, "annotations": annotations})


def test_images_add_clip_scores_and_their_settings_to_the_card(
    tmp_path: Path, images: str, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = PREDICTIONS | {"1": "a bright field", "3": "a dark field"}
    predictions = write(tmp_path / "predictions.json", results(captions))
    encoder = TinyImageTextEncoder()
    card = score_predictions(predictions, images, images=ImageFolder(str(tmp_path / "images"), encoder))
    alone, both = [], []
    for key, gray in GRAYS.items():
        pixels = Pixels(torch.full((1, 3, 8, 8), gray, dtype=torch.uint8))
        scores = ref_clip_scores(encoder, pixels, [captions[key]], [REFERENCES[key]])
        alone.append(scores.clip_scores.item())
        both.append(scores.ref_clip_scores.item())
    assert card["scores"]["CLIPScore"] == pytest.approx(sum(alone) / 3)
    assert card["scores"]["RefCLIPScore"] == pytest.approx(sum(both) / 3)
    assert len(set(alone)) > 1
    assert card["clip"] == {**encoder.provenance(), "prompt": "A photo depicts "}
    printed = capsys.readouterr().out
    assert "RefCLIPScore" in printed
    assert "'A photo depicts '" in printed


def test_missing_images_are_named_before_anything_is_scored(tmp_path: Path, images: str, references: str) -> None:
    predictions = write(tmp_path / "predictions.json", results(PREDICTIONS))
    folder = ImageFolder(str(tmp_path / "images"), TinyImageTextEncoder())
    (tmp_path / "images" / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"\b1 \(.*2\.png\) of 3\b"):
        score_predictions(predictions, images, images=folder)
    with pytest.raises(ValueError, match=r"\b3 \(1, 2, 3\) of 3\b.*file_name"):
        score_predictions(predictions, references, images=folder)
    (tmp_path / "images" / "2.png").write_bytes(b"no image")
    with pytest.raises(OSError, match=r"2\.png.*UnidentifiedImageError"):
        score_predictions(predictions, images, images=folder)


def test_missing_weights_are_an_error(tmp_path: Path, images: str, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = write(tmp_path / "predictions.json", results(PREDICTIONS))
    arguments = ["score", predictions, images, "--images", str(tmp_path / "images")]
    with pytest.raises(SystemExit):
        main([*arguments, "--clip_pretrained", str(tmp_path / "x.pt")])
    assert re.search(r"pretrained tag.*ViT-B-32-quickgelu", " ".join(capsys.readouterr().err.split()))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="the comparison needs java on the PATH")
def test_java_gives_the_same_scores(tmp_path: Path, references: str) -> None:
    predictions = write(tmp_path / "predictions.json", results(PREDICTIONS))
    card = score_predictions(predictions, references, compare_java=True, java_metrics=["METEOR"])
    assert {name: card["scores"][name] for name in card["pycocoevalcap"]} == pytest.approx(
        card["pycocoevalcap"], abs=1e-6
    )
    assert 0 < card["scores"]["METEOR"] < 1
