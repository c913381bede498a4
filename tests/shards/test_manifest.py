import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from synth2_lightning.shards.manifest import Manifest, TokenFormat

TOKENS = TokenFormat(codebook="tiny:1", codebook_size=512, num_tokens=4, num_levels=2)


PART = "part-00000-00000.parquet"
MANIFEST = Manifest(
    tokens=TOKENS,
    parts={PART: 3},
    provenance={"synth2_lightning": "0.0.9"},
    footers={PART: 17},
    digests={PART: "1f3c9a02"},
    is_evaluation=True,
)


def save(folder: Path, **changes: Any) -> None:
    MANIFEST.save(folder)
    content = json.loads((folder / "manifest.json").read_text()) | changes
    (folder / "manifest.json").write_text(json.dumps({key: value for key, value in content.items() if value != "drop"}))


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    MANIFEST.save(tmp_path)
    assert Manifest.read(tmp_path) == MANIFEST
    assert Manifest.read(tmp_path).num_records == 3
    replace(MANIFEST, is_evaluation=False).save(tmp_path)
    assert not Manifest.read(tmp_path).is_evaluation


def test_missing_manifest_is_explained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json.*run it again"):
        Manifest.read(tmp_path)


def test_other_schema_version_is_refused(tmp_path: Path) -> None:
    save(tmp_path, schema_version=2)

    with pytest.raises(ValueError, match=r"version 2.*version 1\..*0\.0\.9"):
        Manifest.read(tmp_path)
    save(tmp_path, schema_version=2, provenance=None)
    with pytest.raises(ValueError, match=r"version 2.*not recorded"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"schema_version": "drop"},
            r"damaged \(KeyError\('schema_version'\)\).*Delete",
        ),
        ({"codebook": "drop"}, r"damaged.*'codebook'"),
        ({"footers": "drop"}, r"damaged.*'footers'"),
        ({"digests": "drop"}, r"damaged.*'digests'"),
        ({"is_evaluation": "drop"}, r"damaged.*'is_evaluation'"),
        ({"checksum": "drop"}, r"damaged.*'checksum'"),
        ({"is_evaluation": False}, "damaged"),
        ({"codebook_size": 0}, r"damaged \(ValueError"),
        ({"parts": []}, r"damaged \(AttributeError"),
        ({"parts": {"a": float("inf")}}, r"damaged"),
        ({"num_records": 4}, "damaged.*3 rows.*4"),
    ],
)
def test_damage_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save(tmp_path, **changes)

    with pytest.raises(ValueError, match=message):
        Manifest.read(tmp_path)


def test_a_caption_set_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"num_kept": 6}')
    with pytest.raises(FileNotFoundError, match=r"caption set.*expected a shard folder.*synthesize\.yaml") as caught:
        Manifest.read(tmp_path)
    assert "Delete" not in str(caught.value)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")

    with pytest.raises(ValueError, match=r"manifest\.json.*damaged.*JSONDecodeError"):
        Manifest.read(tmp_path)


def test_ids_beyond_16_bits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"65537.*65535"):
        TokenFormat(codebook="big:1", codebook_size=65537, num_tokens=4, num_levels=1)
