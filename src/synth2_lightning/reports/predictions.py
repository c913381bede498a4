"""Predictions of any captioner beside what people wrote: read, and joined by the pictures' ids."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from synth2_lightning.locations import resolve
from synth2_lightning.sources.jsonfile import read_json, read_records
from synth2_lightning.tables import read_rows

Missing = Literal["error", "empty", "skip"]
Unknown = Literal["error", "skip"]
Duplicates = Literal["error", "first", "last"]

_COCO = "COCO captions: {'images': [...], 'annotations': [{'image_id': 1, 'caption': '...'}]}"
_RESULTS = "COCO results: [{'image_id': 1, 'caption': '...'}], or .jsonl lines with 'key' or 'image_id' and 'caption'"


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """Captions and references that belong together, and what did not.

    Args:
        hypotheses: The caption of every picture, by id.
        references: What people wrote, by id.
        num_missing: Pictures without a prediction.
        num_unknown: Predictions for ids that have no references.
        num_duplicates: Predictions beyond the first of their id.

    Example:
        >>> ScoredPairs({"1": "a dog"}, {"1": ["a dog"]}, num_missing=2, num_unknown=0, num_duplicates=0).num_missing
        2
    """

    hypotheses: dict[str, str]
    references: dict[str, list[str]]
    num_missing: int
    num_unknown: int
    num_duplicates: int


def read_references(location: str) -> dict[str, list[str]]:
    """Read a COCO captions file; pictures without a caption have no place in it.

    Raises:
        FileNotFoundError: If nothing lies there.
        ValueError: If it is no JSON, or no COCO captions.
    """
    path = resolve(location, "references file")
    references: dict[str, list[str]] = {}
    for number, record in enumerate(read_records(read_json(path, _COCO), "annotations", path, _COCO)):
        key, caption = _take(record, ("image_id",), f"{path}, annotation {number},", _COCO)
        references.setdefault(key, []).append(caption)
    if not references:
        raise ValueError(f"{path} holds no annotation; expected {_COCO}.")
    return references


def read_file_names(location: str) -> dict[str, str]:
    """Read which file of a COCO captions file holds which picture, by the picture's id.

    Raises:
        FileNotFoundError: If nothing lies there.
        ValueError: If it is no JSON, or no COCO captions.
    """
    path = resolve(location, "references file")
    images = read_records(read_json(path, _COCO), "images", path, _COCO)
    return {str(image["id"]): str(image["file_name"]) for image in images if image.keys() >= {"id", "file_name"}}


def read_predictions(location: str) -> list[tuple[str, str]]:
    """Read ids and captions in the order of the file, repeats included.

    Raises:
        FileNotFoundError: If nothing lies there.
        ValueError: If it is no JSON, no COCO results and no lines of predictions.
    """
    path = resolve(location, "predictions file")
    if path.suffix.lower() == ".jsonl":
        records: Any = list(read_rows(path, ["caption"]))
    else:
        records = read_json(path, _RESULTS)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"{path} is no list of objects but {type(records).__name__}; expected {_RESULTS}.")
    return [
        _take(record, ("image_id", "key"), f"{path}, record {number},", _RESULTS)
        for number, record in enumerate(records)
    ]


def join_predictions(
    predictions: Sequence[tuple[str, str]],
    references: Mapping[str, list[str]],
    missing: Missing = "error",
    unknown: Unknown = "error",
    duplicates: Duplicates = "error",
) -> ScoredPairs:
    """Join predictions with references; whatever does not fit is refused, unless one says how to treat it.

    Args:
        predictions: Ids and captions.
        references: What people wrote, by id.
        missing: Pictures without a prediction are refused, scored as an empty caption, or left out of the corpus.
        unknown: Predictions without references are refused, or left out.
        duplicates: Of several predictions of one picture, none is taken, the first, or the last.

    Raises:
        ValueError: If something does not fit and nobody said how to treat it.

    Example:
        >>> join_predictions([("1", "a dog")], {"1": ["a dog"], "2": ["a cat"]}, missing="empty").hypotheses
        {'1': 'a dog', '2': ''}
    """
    counts = Counter(key for key, _ in predictions)
    repeated = [key for key, count in counts.items() if count > 1]
    strangers = [key for key in counts if key not in references]
    absent = [key for key in references if key not in counts]
    problems = []
    if repeated and duplicates == "error":
        problems.append(f"{_examples(repeated)} with several predictions (--duplicates first or last takes one)")
    if strangers and unknown == "error":
        problems.append(f"{_examples(strangers)} that the references do not know (--unknown skip leaves them out)")
    if absent and missing == "error":
        problems.append(
            f"{_examples(absent)} without a prediction (--missing empty scores an empty caption, skip leaves them out)"
        )
    if problems:
        raise ValueError(
            f"Predictions do not fit the references: {'; '.join(problems)}. Expected one prediction of each of the "
            f"{len(references)} pictures."
        )
    chosen = dict(reversed(predictions)) if duplicates == "first" else dict(predictions)
    keys = [key for key in references if key in chosen or missing == "empty"]
    if not keys:
        raise ValueError(
            f"None of {len(counts)} predicted ids is among those of {len(references)} pictures; expected the same ids."
        )
    return ScoredPairs(
        {key: chosen.get(key, "") for key in keys},
        {key: list(references[key]) for key in keys},
        len(absent),
        len(strangers),
        len(predictions) - len(counts),
    )


def _take(record: Mapping[str, Any], names: Sequence[str], where: str, expected: str) -> tuple[str, str]:
    key = next((record[name] for name in names if record.get(name) is not None), None)
    caption = record.get("caption")
    if key is None or isinstance(key, (dict, list, bool)) or not isinstance(caption, str):
        raise ValueError(f"{where} has the id {key!r} and the caption {caption!r}; expected {expected}.")
    return str(key), caption


def _examples(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:3])
    return f"{len(keys)} id(s) ({shown}{', ...' if len(keys) > 3 else ''})"
