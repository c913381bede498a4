"""Predictions of any captioner, joined with reference captions by image id."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from synth2_lightning.io.locations import resolve
from synth2_lightning.io.messages import name_first
from synth2_lightning.io.tables import read_rows
from synth2_lightning.sources.jsonfile import read_json, read_records

Missing = Literal["error", "empty", "skip"]
Unknown = Literal["error", "skip"]
Duplicates = Literal["error", "first", "last"]

_COCO = "COCO captions: {'images': [...], 'annotations': [{'image_id': 1, 'caption': '...'}]}"
_RESULTS = (
    "COCO results: [{'image_id': 1, 'caption': '...'}], or rows of .jsonl, .csv or .tsv with 'caption' and one "
    "of 'image_id', 'key' and 'image' (a path), as `synth2 caption` writes them"
)
_IDS = ("image_id", "key")
_TABLES = {".jsonl", ".csv", ".tsv"}


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """Predicted captions joined with references, and the number of mismatches.

    Args:
        hypotheses: Predicted caption by image id.
        references: Reference captions by image id.
        num_missing: Number of images without a prediction.
        num_unknown: Number of predicted ids without references.
        num_duplicates: Number of predictions beyond the first one of an id.
    """

    hypotheses: dict[str, str]
    references: dict[str, list[str]]
    num_missing: int
    num_unknown: int
    num_duplicates: int


def read_references(location: str) -> dict[str, list[str]]:
    """Read reference captions by image id from a COCO captions file; images without captions are ignored.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not COCO captions JSON.
    """
    path = resolve(location, "references file")
    references: dict[str, list[str]] = {}
    for number, record in enumerate(read_records(read_json(path, _COCO), "annotations", path, _COCO), start=1):
        key, caption = _read_record(record, ("image_id",), f"{path}, annotation {number},", _COCO)
        references.setdefault(key, []).append(caption)
    if not references:
        raise ValueError(f"{path} has no annotations; expected {_COCO}.")
    return references


def read_file_names(location: str) -> dict[str, str]:
    """Read file names by image id from a COCO captions file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not COCO captions JSON.
    """
    path = resolve(location, "references file")
    images = read_records(read_json(path, _COCO), "images", path, _COCO)
    return {str(image["id"]): str(image["file_name"]) for image in images if image.keys() >= {"id", "file_name"}}


def read_image_ids(location: str) -> dict[str, int | str]:
    """Read image ids by file name from a COCO captions file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not COCO captions JSON, or two images have the same file name.
    """
    path = resolve(location, "references file")
    ids: dict[str, int | str] = {}
    for image in read_records(read_json(path, _COCO), "images", path, _COCO):
        name, key = image.get("file_name"), image.get("id")
        if isinstance(name, str) and isinstance(key, (int, str)) and ids.setdefault(name, key) != key:
            raise ValueError(
                f"{path} has two images with the file name {name!r} (ids {ids[name]!r} and {key!r}); expected one id "
                "per file. Remove one of them."
            )
    return ids


def find_image_id(image: str, ids: Mapping[str, int | str]) -> int | str | None:
    """Return the id of an image by its path; ``None`` if it is unknown.

    Args:
        image: Path, of which the longest trailing part that is a file name counts.
        ids: Ids by file name, from :func:`read_image_ids`.

    Example:
        >>> find_image_id("/disk/photos/ward/b.png", {"b.png": 1, "ward/b.png": 2})
        2
    """
    parts = PurePath(image).parts
    names = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((ids[name] for name in names if name in ids), None)


def image_ids(images: Sequence[str], location: str) -> dict[str, int | str]:
    """Return the ids of images in a COCO captions file by their paths.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not COCO captions JSON, does not have an image, or two images have the same id.
    """
    ids = read_image_ids(location)
    found: dict[str, int | str] = {}
    paths: dict[int | str, str] = {}
    for image in images:
        if (key := find_image_id(image, ids)) is None:
            raise ValueError(
                f"{location} has no image with a file name at the end of {image!r}; expected each image of the command "
                f"there, such as {next(iter(ids), 'a.jpg')!r}. Name only images of that file, or write .jsonl."
            )
        if paths.setdefault(key, image) != image:
            raise ValueError(
                f"{paths[key]!r} and {image!r} are both image {key!r} of {location}; expected one of them."
            )
        found[image] = key
    return found


def read_predictions(location: str, references: str) -> list[tuple[str, str]]:
    """Read image ids and captions in file order, including duplicates.

    Args:
        location: COCO results, or a table with a column of ids or of paths.
        references: COCO captions, whose file names give paths their ids. A path that they do not have is its own id.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is not of a known format.
    """
    path = resolve(location, "predictions file")
    if path.suffix.lower() in _TABLES:
        records: Any = list(read_rows(path, ["caption"]))
    else:
        records = read_json(path, _RESULTS)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{path} is not a list of objects but {type(records).__name__}; expected {_RESULTS}.")
    pairs, images = [], set()
    for number, record in enumerate(records, start=1):
        pairs.append(_read_record(record, (*_IDS, "image"), f"{path}, record {number},", _RESULTS))
        if all(record.get(name) is None for name in _IDS):
            images.add(pairs[-1][0])
    ids = read_image_ids(references) if images else {}
    found = {image: key for image in images if (key := find_image_id(image, ids)) is not None}
    return [(str(found.get(key, key)), caption) for key, caption in pairs]


def join_predictions(
    predictions: Sequence[tuple[str, str]],
    references: Mapping[str, list[str]],
    missing: Missing = "error",
    unknown: Unknown = "error",
    duplicates: Duplicates = "error",
) -> ScoredPairs:
    """Join predictions with references by image id.

    Args:
        predictions: Image ids and captions.
        references: Reference captions by image id.
        missing: For images without a prediction, raise an error, score an empty caption, or skip the image.
        unknown: For predictions without references, raise an error or skip them.
        duplicates: For several predictions of an image, raise an error, or use the first or the last one.

    Raises:
        ValueError: If ids do not match and the corresponding option is ``error``, or no ids match.

    Example:
        >>> join_predictions([("1", "a dog")], {"1": ["a dog"], "2": ["a cat"]}, missing="empty").hypotheses
        {'1': 'a dog', '2': ''}
    """
    counts = Counter(key for key, _ in predictions)
    repeated = [key for key, count in counts.items() if count > 1]
    unknown_keys = [key for key in counts if key not in references]
    missing_keys = [key for key in references if key not in counts]
    problems = []
    if repeated and duplicates == "error":
        problems.append(f"{_examples(repeated)} with several predictions (--duplicates first or last uses one)")
    if unknown_keys and unknown == "error":
        problems.append(f"{_examples(unknown_keys)} without references (--unknown skip omits them)")
    if missing_keys and missing == "error":
        problems.append(
            f"{_examples(missing_keys)} without a prediction (--missing empty scores an empty caption, skip omits them)"
        )
    if problems:
        raise ValueError(
            f"Predictions do not match the references: {'; '.join(problems)}. Expected one prediction for each of the "
            f"{len(references)} images."
        )
    chosen = dict(reversed(predictions)) if duplicates == "first" else dict(predictions)
    keys = [key for key in references if key in chosen or missing == "empty"]
    if not keys:
        raise ValueError(
            f"None of {len(counts)} predicted ids is among the ids of {len(references)} images; expected equal ids."
        )
    return ScoredPairs(
        {key: chosen.get(key, "") for key in keys},
        {key: list(references[key]) for key in keys},
        len(missing_keys),
        len(unknown_keys),
        len(predictions) - len(counts),
    )


def _read_record(record: Mapping[str, Any], names: Sequence[str], where: str, expected: str) -> tuple[str, str]:
    key = next((record[name] for name in names if record.get(name) is not None), None)
    caption = record.get("caption")
    if key is None or isinstance(key, (dict, list, bool)) or not isinstance(caption, str):
        raise ValueError(f"{where} has the id {key!r} and the caption {caption!r}; expected {expected}.")
    return str(key), caption


def _examples(keys: Sequence[str]) -> str:
    return f"{len(keys)} id(s) ({name_first(keys)})"
