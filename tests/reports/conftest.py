from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder ``data`` of 20 images with two captions each, in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for number in range(20):
        Image.new("RGB", (30, 20), (10 * number,) * 3).save(f"data/{number:02}.png")
        Path(f"data/{number:02}.txt").write_text("a dog\na big dog\n")
    return Path("data")
