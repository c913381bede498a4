import json
from pathlib import Path
from typing import Any

import pytest

from synth2_lightning.shards.manifest import Manifest, TokenFormat

TOKENS = TokenFormat(codebook="tiny:1", codebook_size=512, num_tokens=4, num_levels=2)


def save(folder: Path, **changes: Any) -> None:
    Manifest(tokens=TOKENS, parts={"part-00000-00000.parquet": 3}, provenance={"synth2_lightning": "0.0.9"}).save(
        folder
    )
    content = json.loads((folder / "manifest.json").read_text()) | {"checksum": "drop"} | changes
    (folder / "manifest.json").write_text(json.dumps({key: value for key, value in content.items() if value != "drop"}))


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    save(tmp_path)

    manifest = Manifest.read(tmp_path)
    assert manifest.tokens == TOKENS
    assert manifest.num_records == 3
    assert manifest.provenance == {"synth2_lightning": "0.0.9"}
    assert not manifest.is_evaluation
    save(tmp_path, is_evaluation=True)
    assert Manifest.read(tmp_path).is_evaluation


def test_missing_manifest_is_explained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no manifest\.json, so it is no finished folder.*goes on where"):
        Manifest.read(tmp_path)


def test_other_schema_version_is_refused(tmp_path: Path) -> None:
    save(tmp_path, schema_version=4)

    with pytest.raises(ValueError, match=r"version 4; this package reads versions 1 to 3.*that wrote it \(0\.0\.9\)"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("version", [1, 2])
def test_earlier_schema_versions_are_read(tmp_path: Path, version: int) -> None:
    save(tmp_path, schema_version=version, is_evaluation="drop")

    manifest = Manifest.read(tmp_path)
    assert manifest.num_records == 3
    assert not manifest.is_evaluation


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"schema_version": "drop"},
            r"is damaged \(KeyError\('schema_version'\)\)\. Delete the file and make it again",
        ),
        ({"codebook": "drop"}, r"is damaged \(KeyError\('codebook'\)\)"),
        ({"codebook_size": 0}, r"is damaged \(ValueError"),
        ({"parts": []}, r"is damaged \(AttributeError"),
        ({"num_records": 4}, "is damaged: its parts have 3 rows, it says 4"),
    ],
)
def test_damage_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save(tmp_path, **changes)

    with pytest.raises(ValueError, match=message):
        Manifest.read(tmp_path)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")

    with pytest.raises(ValueError, match=r"manifest\.json is damaged \(JSONDecodeError"):
        Manifest.read(tmp_path)


def test_ids_beyond_16_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="has 65537 codes; shards hold ids from 0 to 65535 only"):
        TokenFormat(codebook="big:1", codebook_size=65537, num_tokens=4, num_levels=1)
