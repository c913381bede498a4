import json
import logging
from pathlib import Path

import pytest

from synth2_lightning.sources.vizwiz import VizwizSource


def test_rejected_and_canned_captions_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    canned = "Quality issues are too severe to recognize visual content."
    rows = [(0, "A can of soup.", 0, 0), (0, canned, 1, 0), (0, "spam", 0, 1), (1, canned, 1, 0), (0, "Soup.", 0, 0)]
    annotations = [
        {
            "id": n,
            "image_id": i,
            "caption": text,
            "is_precanned": bool(c),
            "is_rejected": bool(r),
            "text_detected": True,
        }
        for n, (i, text, c, r) in enumerate(rows)
    ]
    images = [{"id": i, "file_name": f"VizWiz_val_{i:08d}.jpg", "text_detected": True} for i in range(2)]
    (tmp_path / "val.json").write_text(json.dumps({"info": {}, "images": images, "annotations": annotations}))
    source = VizwizSource(str(tmp_path / "val.json"), str(tmp_path))
    with caplog.at_level(logging.WARNING):
        source.load()
    assert [source.key(index) for index in range(len(source))] == ["0"]
    assert source.captions(0) == ("A can of soup.", "Soup.")
    assert "skips 2 canned captions (the first: of image_id 0), 1 rejected captions" in caplog.text
    assert "1 images without a caption (the first: 1)" in caplog.text


def test_a_file_without_the_rejected_field_is_refused(tmp_path: Path) -> None:
    content = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"image_id": 1, "caption": "Soup."}]}
    (tmp_path / "val.json").write_text(json.dumps(content))
    source = VizwizSource(str(tmp_path / "val.json"), str(tmp_path))
    with pytest.raises(ValueError, match=r"'is_rejected'.*COCO.*captions"):
        source.load()
