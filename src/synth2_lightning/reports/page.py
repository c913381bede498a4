"""Writing of a report as a self-contained HTML page, a PNG image and JSON."""

from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from synth2_lightning import __version__
from synth2_lightning.io.atomic import write_atomically, write_json
from synth2_lightning.io.extras import require_extra
from synth2_lightning.reports.charts import (
    MAP_GROUP,
    Chart,
    chart_style,
    color_of,
    draw_common_clusters,
    draw_map,
    list_charts,
)
from synth2_lightning.reports.comparison import ComparedSet, Comparison
from synth2_lightning.reports.measures import compute_measures, tabulate
from synth2_lightning.reports.partitions import MAX_CHARACTERS

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"


def write_report(comparison: Comparison, folder: Path) -> Path:
    """Write ``report.html``, ``report.png`` and ``report.json``, and return the path of the page.

    The page has no scripts and no external resources; captions are escaped.

    Raises:
        OSError: If the folder cannot be written to. Each file is written atomically.
    """
    write_json(folder / "report.json", describe(comparison))
    with chart_style():
        write_atomically(folder / "report.png", lambda draft: _write_image(comparison, draft))
        page = _render_page(comparison)
    write_atomically(folder / "report.html", lambda draft: draft.write_text(page, "utf-8"))
    return folder / "report.html"


def describe(comparison: Comparison) -> dict[str, Any]:
    """Return all values of a report as JSON-serializable objects."""
    return {
        "synth2_lightning": __version__,
        "sample_size": comparison.sample_size,
        "num_clusters": len(comparison.topics),
        "seed": comparison.seed,
        "encoder": comparison.encoder,
        "sets": [_describe_set(one) for one in comparison.sets],
        "common_clusters": [{"words": topic.words, "examples": topic.examples} for topic in comparison.topics],
    }


def _describe_set(one: ComparedSet) -> dict[str, Any]:
    return {
        "name": one.captions.name,
        "num_blank": one.captions.num_blank,
        "num_cut": one.captions.counts.num_long,
        "figures": compute_measures(one),
        "lengths": one.statistics.words.lengths,
        "own_cluster_sizes": one.own_sizes,
        "common_cluster_sizes": one.common_sizes,
        "class_sizes": one.statistics.classes,
        "class_branches": one.statistics.class_branches,
        "noun_branches": one.statistics.noun_branches,
        "manifest": one.captions.manifest,
    }


def _render_page(comparison: Comparison) -> str:
    require_extra("jinja2", "report")
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files(__package__).joinpath("page.html.jinja").read_text("utf-8"))
    return template.render(
        comparison=comparison,
        measures=tabulate(comparison.sets),
        charts=[_draw_svg(chart, comparison, 6.4, 4.0) for chart in list_charts(comparison)],
        common_clusters=_draw_svg(draw_common_clusters, comparison, 12.0, 4.6),
        map=_add_tooltips(_draw_svg(draw_map, comparison, 12.0, 8.4), comparison),
        color_of=color_of,
        max_characters=MAX_CHARACTERS,
        version=__version__,
    )


def _draw_svg(chart: Chart, comparison: Comparison, width: float, height: float) -> str:
    require_extra("matplotlib", "report")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    chart(figure.subplots(), comparison)
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]  # without the XML prologue


def _add_tooltips(svg: str, comparison: Comparison) -> str:
    """Add each caption as the tooltip of its point in the map, which matplotlib does not support."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(svg)
    caption_map = comparison.map
    for number in range(len(comparison.sets)):
        points = root.findall(f".//{{{_SVG}}}g[@id='{MAP_GROUP.format(number)}']//{{{_SVG}}}g/{{{_SVG}}}use")
        captions = [caption_map.captions[row] for row in (caption_map.sets == number).nonzero().flatten().tolist()]
        for point, caption in zip(points, captions, strict=True):
            ElementTree.SubElement(point, f"{{{_SVG}}}title").text = caption
    return ElementTree.tostring(root, encoding="unicode")


def _write_image(comparison: Comparison, path: Path) -> None:
    from matplotlib.figure import Figure

    small = list_charts(comparison)
    heights = [4.0] * ((len(small) + 1) // 2) + [4.6, 8.4]
    figure = Figure(figsize=(13, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    for index, chart in enumerate(small):
        chart(figure.add_subplot(grid[index // 2, index % 2]), comparison)
    draw_common_clusters(figure.add_subplot(grid[-2, :]), comparison)
    draw_map(figure.add_subplot(grid[-1, :]), comparison)
    figure.savefig(path, dpi=110, format="png")
