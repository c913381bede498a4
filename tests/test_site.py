"""Site of the documentation: pages outside of docs/, the API reference, and nothing from other hosts."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import markdown
import pytest
from markdown_it import MarkdownIt

import synth2_lightning

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("configs/**/*.md")]
)
EXTERNAL = re.compile(r"(?:https?:)?//")


class Loaded(HTMLParser):
    """Collects the addresses that a browser loads with a page, without links that a reader follows."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        is_loaded = tag != "link" or values.get("rel") not in ("canonical", "next", "prev")
        self.addresses += [values.get("src") or "", (values.get("href") or "") if tag == "link" and is_loaded else ""]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_lists_and_tables_are_the_same_on_github_and_on_the_site(document: Path) -> None:
    text = document.read_text("utf-8")
    on_github = MarkdownIt("commonmark").enable("table").render(text)
    on_site = markdown.markdown(text, extensions=["tables", "pymdownx.highlight", "pymdownx.superfences"])
    for tag in ("<ol", "<ul", "<li", "<tr", "<td", "<pre", "<h2"):
        assert on_site.count(tag) == on_github.count(tag), tag


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_sentence_follows_the_title(document: Path) -> None:
    tokens = MarkdownIt("commonmark").parse(document.read_text("utf-8"))
    assert [token.type for token in tokens[:4]] == ["heading_open", "inline", "heading_close", "paragraph_open"]
    assert tokens[4].children is not None
    assert tokens[4].children[0].type != "image"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.slow
def test_links_to_other_folders_lead_to_pages_of_the_site(site: Path) -> None:
    page = (site / "your_own_images" / "index.html").read_text("utf-8")
    assert 'href="../configs/photos.yaml/"' in page
    assert 'href="../configs/experiments/coco/"' in page
    assert "init_args" in (site / "configs" / "filters" / "captions.yaml" / "index.html").read_text("utf-8")
    assert 'href="docs/' not in (site / "index.html").read_text("utf-8")  # the README


@pytest.mark.slow
def test_every_public_name_leads_to_its_description(site: Path) -> None:
    page = (site / "api" / "synth2_lightning" / "index.html").read_text("utf-8")
    for name in synth2_lightning.__all__:
        (link,) = re.findall(rf'href="\.\./(\w+)/#(synth2_lightning\.[\w.]+\.{name})"', page)
        assert f'id="{link[1]}"' in (site / "api" / link[0] / "index.html").read_text("utf-8")


@pytest.mark.slow
def test_options_are_marked_so_that_they_do_not_break(site: Path) -> None:
    page = (site / "your_own_images" / "index.html").read_text("utf-8")
    assert '<span class="option">--t</span>rainer.max_steps=60' in page
    assert " --trainer" not in page
    style = (site / "site.css").read_text("utf-8")
    assert re.search(r"\.option {\s*white-space: nowrap;", style)


@pytest.mark.slow
def test_docstrings_are_rendered(site: Path) -> None:
    page = (site / "api" / "modules" / "index.html").read_text("utf-8")
    assert "Examples:" in page
    assert ":class:" not in page
    assert "&gt;&gt;&gt;" not in re.sub(r"<pre.*?</pre>", "", page, flags=re.DOTALL)


@pytest.mark.slow
def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text("utf-8"))
        assert [address for address in loaded.addresses if EXTERNAL.match(address)] == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text("utf-8")), style
