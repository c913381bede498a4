"""Pages of the site that are not in ``docs/``: documents of other folders, files that documents link to, and the API.

Documents link to files by relative paths of the repository, as GitHub expects. On the site, ``docs/`` is the root,
other documents keep their paths, and any other linked file is a page with its text.
"""

import re
from os.path import normpath, relpath
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import synth2_lightning

_LINK = re.compile(r"(?<=\]\()(?![a-z]+:)[^)#\s]+")
_LANGUAGES = {".py": "python", ".sbatch": "bash", ".sh": "bash", ".yaml": "yaml"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Return the files of the site, with those outside of ``docs/`` that documents link to, and the API reference."""
    root = Path(config.config_file_path).parent
    unread = ["README.md", *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    pages = set(unread)
    while unread:
        path = unread.pop()
        linked = _linked(path, (root / path).read_text("utf-8"), root).values() if path.endswith(".md") else ()
        new = {target for target in linked if not target.startswith("docs/")} - pages
        pages |= new
        unread += new
    for path in sorted(pages):
        if not path.startswith("docs/"):
            files.append(File.generated(config, _uri(path), content=_content(path, root)))
    for page, content in _api(config).items():
        files.append(File.generated(config, f"api/{page}.md", content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Return the text of a page of ``docs/`` with its links to other folders changed to pages of the site."""
    if page.file.generated_by is not None:
        return markdown
    return _with_links_of_site(f"docs/{page.file.src_uri}", markdown, Path(config.config_file_path).parent)


def on_page_content(html: str, **_: Any) -> str:
    """Return the HTML of a page with options marked for ``site.css``: browsers would break lines after their dashes."""
    return re.sub(r"(?<=[\s>])--\w", r'<span class="option">\g<0></span>', html)


def _uri(path: str) -> str:
    """Return the path in the site's sources for a path in the repository."""
    inside = path.removeprefix("docs/")
    return inside if inside != path or path.endswith(".md") else f"{path}.md"


def _linked(path: str, text: str, root: Path) -> dict[str, str]:
    """Return the relative links of a document to existing files, with the paths of these files in the repository."""
    found = {}
    for link in set(_LINK.findall(text)):
        target = normpath(PurePosixPath(path).parent / link)
        if (root / target).is_dir():
            target += "/README.md"
        if (root / target).is_file():
            found[link] = target
    return found


def _with_links_of_site(path: str, text: str, root: Path) -> str:
    linked = _linked(path, text, root)
    folder = PurePosixPath(_uri(path)).parent
    return _LINK.sub(lambda link: relpath(_uri(linked[link[0]]), folder) if link[0] in linked else link[0], text)


def _content(path: str, root: Path) -> str:
    """Return the text of the page of a file outside of ``docs/``."""
    text = (root / path).read_text("utf-8")
    if path.endswith(".md"):
        return _with_links_of_site(path, text, root)
    fence, language = "`" * 6, _LANGUAGES.get(PurePosixPath(path).suffix, "text")
    return f"---\nsearch: {{exclude: true}}\n---\n# {path}\n\n{fence}{language}\n{text}{fence}\n"


def _api(config: MkDocsConfig) -> dict[str, str]:
    """Return the pages of the API that the navigation names: the public names, and subpackages."""
    names = synth2_lightning._LAZY_IMPORTS
    rows = [f"| [`{name}`][synth2_lightning.{names[name]}] | `{names[name].rpartition('.')[0]}` |" for name in names]
    table = "\n".join(["| name | module |", "|---|---|", *rows])
    intro = "What `synth2_lightning` exports, and the modules below `synth2_lightning` that define it."
    pages = {"synth2_lightning": f"# Public names\n\n{intro}\n\n{table}\n"}
    for name in re.findall(r"api/(\w+)\.md", str(config.nav)):
        pages.setdefault(name, f"# {name}\n\n::: synth2_lightning.{name}\n")
    return pages
