"""Matplotlib charts of a report, embedded in the page as SVG and saved together as PNG."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from synth2_lightning.metrics.balance import measure_balance
from synth2_lightning.reports.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Chart = Callable[["Axes", Comparison], None]
"""Function that plots a comparison into axes."""

MAP_GROUP = "captions-of-set-{}"
"""Id of the SVG group of a set's points in the caption map."""

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#666666")  # Okabe and Ito
_MAX_BRANCHES = 12
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "font.family": ["DejaVu Sans"],
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "svg.fonttype": "none",  # text elements: smaller than paths, and searchable
    "svg.hashsalt": "synth2",  # deterministic ids, so that equal reports are equal files
    "text.parse_math": False,  # captions may contain dollar signs
}


def color_of(number: int) -> str:
    """Return the color of a set; colors repeat after eight sets."""
    return _COLORS[number % len(_COLORS)]


@contextmanager
def chart_style() -> Iterator[None]:
    """Apply the report style, independent of the user's matplotlib settings."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing")  # the font does not cover all scripts
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def draw_lengths(axes: "Axes", comparison: Comparison) -> None:
    """Plot the distribution of caption lengths."""
    longest = max(max(one.statistics.words.lengths) for one in comparison.sets)
    for number, one in enumerate(comparison.sets):
        percentages = np.zeros(longest + 2)
        for length, count in one.statistics.words.lengths.items():
            percentages[length] = 100 * count / comparison.sample_size
        edges = np.arange(longest + 3) - 0.5
        axes.stairs(percentages, edges, fill=True, color=color_of(number), alpha=0.18)
        axes.stairs(percentages, edges, color=color_of(number), linewidth=1.6, label=one.captions.name)
    axes.set(title="Caption length", xlabel="words", ylabel="% of captions", xlim=(0, longest + 1))
    axes.legend()


def draw_own_clusters(axes: "Axes", comparison: Comparison) -> None:
    """Plot the cluster sizes of each set's own clusters, largest first."""
    _draw_bars(axes, comparison, [one.own_sizes for one in comparison.sets])
    num = len(comparison.sets[0].own_sizes)
    axes.set_xticks(range(num), [str(rank + 1) for rank in range(num)], fontsize=8)
    axes.set(title="Own clusters of each set", xlabel="cluster, by size", ylabel="% of captions")
    axes.legend()


def draw_common_clusters(axes: "Axes", comparison: Comparison) -> None:
    """Plot the sizes of the common clusters in each set."""
    _draw_bars(axes, comparison, [one.common_sizes for one in comparison.sets])
    names = [" ".join(topic.words[:2]) for topic in comparison.topics]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set(title="Common clusters", ylabel="% of captions")
    axes.legend()


def draw_class_balance(axes: "Axes", comparison: Comparison) -> None:
    """Plot Lorenz curves of the class sizes; the diagonal means equal sizes."""
    axes.plot([0, 100], [0, 100], color="#999999", linestyle="--", linewidth=1)
    for number, one in enumerate(comparison.sets):
        if one.statistics.classes:
            sizes = np.sort(list(one.statistics.classes.values()))
            percentages = np.concatenate([[0], 100 * np.cumsum(sizes) / sizes.sum()])
            x = np.linspace(0, 100, len(percentages))
            axes.plot(x, percentages, color=color_of(number), linewidth=1.8, label=one.captions.name)
    axes.set(title="Class balance (Lorenz curve)", xlabel="% of classes, smallest first", ylabel="% of captions")
    axes.set(xlim=(0, 100), ylim=(0, 100))
    axes.legend()


def draw_branches(axes: "Axes", comparison: Comparison) -> None:
    """Plot the WordNet branches of the nouns in captions."""
    percentages = []
    for one in comparison.sets:
        counts = one.statistics.noun_branches
        percentages.append({branch: 100 * count / sum(counts.values()) for branch, count in counts.items()})
    total = {branch: sum(each.get(branch, 0) for each in percentages) for each in percentages for branch in each}
    branches = sorted(total, key=lambda branch: (-total[branch], branch))[:_MAX_BRANCHES]
    height = 0.8 / len(percentages)
    for number, (one, values) in enumerate(zip(comparison.sets, percentages, strict=True)):
        rows = np.arange(len(branches)) + (number - (len(percentages) - 1) / 2) * height
        widths = [values.get(branch, 0) for branch in branches]
        axes.barh(rows, widths, height, color=color_of(number), label=one.captions.name)
    axes.set_yticks(range(len(branches)), branches)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(title="Nouns by WordNet branch", xlabel="% of nouns in captions")
    axes.legend()


def draw_map(axes: "Axes", comparison: Comparison) -> None:
    """Plot captions as points, labeled with the typical words of the common clusters."""
    plane = comparison.map
    for number, one in enumerate(comparison.sets):
        x, y = plane.positions[plane.sets == number].numpy().T
        label, group = one.captions.name, MAP_GROUP.format(number)
        axes.scatter(x, y, s=14, color=color_of(number), alpha=0.55, linewidths=0, label=label, gid=group)
    _label_topics(axes, comparison)
    axes.set(title="Caption map (t-SNE)", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.legend(loc="upper left", markerscale=2)


def list_charts(comparison: Comparison) -> list[Chart]:
    """Return the charts for which data exist, other than the common clusters and the map, which are larger."""
    charts: list[Chart] = [draw_lengths, draw_own_clusters]
    if any(one.statistics.classes for one in comparison.sets):
        charts.append(draw_class_balance)
    if all(one.statistics.noun_branches for one in comparison.sets):
        charts.append(draw_branches)
    return charts


def _label_topics(axes: "Axes", comparison: Comparison) -> None:
    """Label each topic at the median of its captions, shifted down where labels would overlap."""
    plane = comparison.map
    width, height = (plane.positions.amax(0) - plane.positions.amin(0)).tolist()
    occupied: list[tuple[float, float]] = []
    for number, topic in enumerate(comparison.topics):
        members = plane.positions[plane.topics == number]
        if not len(members):
            continue
        x, y = members.median(0).values.tolist()
        while any(abs(x - left) < 0.17 * width and abs(y - low) < 0.029 * height for left, low in occupied):
            y -= 0.01 * height
        occupied.append((x, y))
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        text = f"{number + 1} {' '.join(topic.words)}"
        axes.text(x, y, text, fontsize=10, ha="center", va="center", color="#111111", bbox=box)


def _draw_bars(axes: "Axes", comparison: Comparison, sizes: Sequence[Sequence[int]]) -> None:
    width = 0.8 / len(sizes)
    for number, (one, row) in enumerate(zip(comparison.sets, sizes, strict=True)):
        balance = measure_balance(row)
        label = f"{one.captions.name}: top-5 {balance.top_five_fraction:.1%}, {balance.entropy:.2f} bits"
        places = np.arange(len(row)) + (number - (len(sizes) - 1) / 2) * width
        percentages = 100 * np.asarray(row) / comparison.sample_size
        axes.bar(places, percentages, width, color=color_of(number), label=label)
    axes.grid(visible=False, axis="x")
    axes.margins(x=0.01, y=0.22)  # space for the legend above the bars
