import json
import re
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from synth2_lightning.reports.commands import report_on_sets
from synth2_lightning.testing import TinyTextEncoder

HOSTILE = '<script>document.title = "taken over"</script><img src=x onerror="document.title=1"> costs $5 & $6'
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report on two sets: generated captions with classes, filters and a hostile caption, and real ones."""
    folder = tmp_path_factory.mktemp("report")
    names = ["dog", "cat", "tree", "car"] * 6
    captions = [f"a {name} with {number} things" for number, name in enumerate(names)]
    captions[3], captions[5] = HOSTILE, " "
    (folder / "written").mkdir()
    pq.write_table(pa.table({"caption": captions, "class_name": names}), folder / "written" / "captions.parquet")
    counts = {"name": "LengthFilter", "num_seen": 40, "num_changed": 2, "num_rejected": 16}
    (folder / "written" / "manifest.json").write_text(json.dumps({"num_written": 40, "filters": [counts]}))
    real = [f"{number} people walk along a street with a dog today" for number in range(30)]
    (folder / "real.txt").write_text("\n".join(real))
    (folder / "test.txt").write_text(real[0])
    report_on_sets(
        [f"writ<b>ten={folder / 'written'}", str(folder / "real.txt")],
        folder / "out",
        TinyTextEncoder(),
        num_clusters=4,
        evaluation=str(folder / "test.txt"),
        console=Console(quiet=True),
    )
    return folder / "out"


def browse(page: Path, profile: Path, *words: str) -> str:
    assert BROWSER is not None
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", *quiet]
    command += [f"--user-data-dir={profile}", "--window-size=1280,3600", *words, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed, such as Debian's package chromium")
def test_a_browser_renders_the_page_without_scripts(report: Path, tmp_path: Path) -> None:
    dom = browse(report / "report.html", tmp_path, "--dump-dom")
    assert "<title>Caption sets: writ&lt;b&gt;ten, real</title>" in dom
    assert "<script" not in dom
    assert "<img" not in dom
    assert "Caption length" in dom
    assert "LengthFilter" in dom
    assert dom.count("<svg") == 6
    assert dom.count("<title>") == 1 + 2 * 23  # of the page, and of every point of the map
    assert "&lt;script&gt;document.title" in dom

    browse(report / "report.html", tmp_path, f"--screenshot={tmp_path / 'page.png'}", "--hide-scrollbars")
    image = Image.open(tmp_path / "page.png").convert("RGB")
    assert image.size == (1280, 3600)
    colors = {color for _, color in image.getcolors(maxcolors=2**24) or []}
    assert {(255, 255, 255), (0, 114, 178), (213, 94, 0)} <= colors  # background, and the bars of both sets


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed, such as Debian's package chromium")
def test_tables_and_wide_charts_scroll_within_a_narrow_page(report: Path, tmp_path: Path) -> None:
    page = (report / "report.html").read_text()
    policy = re.search(r"<meta http-equiv.*?>", page)
    assert policy is not None  # it forbids the script below
    script = "{const {scrollWidth, clientWidth} = document.documentElement; document.title = scrollWidth - clientWidth}"
    (tmp_path / "measured.html").write_text(
        page.replace(policy[0], "").replace("</body>", f"<script>{script}</script></body>")
    )
    dom = browse(tmp_path / "measured.html", tmp_path / "profile", "--dump-dom", "--window-size=500,900")
    assert "<title>0</title>" in dom


def test_the_page_has_no_external_resources(report: Path) -> None:
    page = (report / "report.html").read_text()
    for name in ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", "http://www.w3.org/"):
        page = page.replace(name, "")
    assert "http" not in page.replace("http-equiv", "")
    assert "writ<b>ten" not in page


def test_all_values_are_in_the_json(report: Path) -> None:
    content = json.loads((report / "report.json").read_text())
    written, real = content["sets"]
    assert content["sample_size"] == 23
    assert (written["name"], written["num_blank"], written["figures"]["num_captions"]) == ("writ<b>ten", 1, 23)
    assert written["figures"]["num_classes"] == 4
    assert real["figures"]["num_classes"] is None
    assert written["class_branches"] == {"artifact": 6, "plant": 6, "animal": 11}
    assert real["noun_branches"]["animal"] == 23
    assert sum(real["own_cluster_sizes"]) == sum(real["common_cluster_sizes"]) == 23
    assert real["figures"]["evaluation_overlap"] > 0.9  # the captions differ in a number
    assert written["figures"]["evaluation_overlap"] == 0
    assert len(content["common_clusters"]) == 4


def test_the_image_is_not_empty(report: Path) -> None:
    assert len(Image.open(report / "report.png").convert("RGB").getcolors(maxcolors=2**24) or []) > 50


@pytest.mark.slow
def test_equal_reports_are_equal_files(report: Path, tmp_path: Path) -> None:
    sets = [f"writ<b>ten={report.parent / 'written'}", str(report.parent / "real.txt")]
    evaluation = str(report.parent / "test.txt")
    report_on_sets(sets, tmp_path, TinyTextEncoder(), 4, evaluation=evaluation, console=Console(quiet=True))
    assert (tmp_path / "report.html").read_bytes() == (report / "report.html").read_bytes()


def test_fewer_captions_than_clusters_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a fox\nan owl\n")
    with pytest.raises(ValueError, match=r"2 captions.*20 clusters"):
        report_on_sets([str(tmp_path / "t.txt")], tmp_path / "out", TinyTextEncoder(), console=Console(quiet=True))
