import json
import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from synth2_lightning.sources.nocaps import NocapsSource


def write(folder: Path, **changes: Any) -> str:
    domains = {0: "in-domain", 1: "near-domain", 2: "out-domain", 3: "near-domain"}
    images = [
        {"id": i, "file_name": f"{i:016x}.jpg", "open_images_id": f"{i:016x}", "domain": d, **changes}
        for i, d in domains.items()
    ]
    captions = [{"id": 10 * i + n, "image_id": i, "caption": f"A thing {i} {n}."} for i in domains for n in range(10)]
    (folder / "nocaps.json").write_text(json.dumps({"licenses": [], "images": images, "annotations": captions}))
    for image in images:
        Image.new("RGB", (4, 4)).save(folder / image["file_name"])
    return str(folder / "nocaps.json")


def test_keys_contain_the_domain_and_all_ten_captions_are_read(tmp_path: Path) -> None:
    source = NocapsSource(write(tmp_path), str(tmp_path))
    source.load()
    assert [source.key(i) for i in range(4)] == ["in-domain/0", "near-domain/1", "out-domain/2", "near-domain/3"]
    assert len(source.captions(2)) == 10
    assert source.image(3).size == (4, 4)


def test_one_domain_may_be_read_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = NocapsSource(write(tmp_path), str(tmp_path), domain="near-domain")
    with caplog.at_level(logging.WARNING):
        source.load()
    assert [source.key(i) for i in range(len(source))] == ["near-domain/1", "near-domain/3"]
    assert caplog.text == ""


def test_domains_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"NoCaps.*'far'.*near-domain"):
        NocapsSource("a.json", "images", domain="far")
    source = NocapsSource(write(tmp_path, domain=None), str(tmp_path))
    with pytest.raises(ValueError, match=r"domain.*0.*validation"):
        source.load()
