"""The charts of a report, drawn by matplotlib: into the page as SVG, into one picture as PNG."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from synth2_lightning.reports.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Chart = Callable[["Axes", Comparison], None]
"""Draws a comparison into axes."""

MAP_GROUP = "captions-of-set-{}"
"""Id of the SVG group of a set's points in the map."""

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
    "svg.fonttype": "none",  # texts stay texts: sharp, small, and to be searched
    "svg.hashsalt": "synth2",  # equal reports are equal files
    "text.parse_math": False,  # captions may hold dollars
}


def color_of(number: int) -> str:
    """Color of a set; after eight sets they repeat."""
    return _COLORS[number % len(_COLORS)]


@contextmanager
def chart_style() -> Iterator[None]:
    """Draw in the style of our reports, whatever the user's matplotlib is set to."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing")  # words may be in any script
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def draw_lengths(axes: "Axes", comparison: Comparison) -> None:
    """Draw how long captions are."""
    longest = max(max(one.figures.words.lengths) for one in comparison.sets)
    for number, one in enumerate(comparison.sets):
        shares = np.zeros(longest + 2)
        for length, count in one.figures.words.lengths.items():
            shares[length] = 100 * count / comparison.sample_size
        edges = np.arange(longest + 3) - 0.5
        axes.stairs(shares, edges, fill=True, color=color_of(number), alpha=0.18)
        axes.stairs(shares, edges, color=color_of(number), linewidth=1.6, label=one.captions.name)
    axes.set(title="Length of captions", xlabel="words", ylabel="% of captions", xlim=(0, longest + 1))
    axes.legend()


def draw_own_clusters(axes: "Axes", comparison: Comparison) -> None:
    """Draw how each set fills its own clusters, the largest first."""
    labels = [
        f"{one.captions.name}: top five {one.own_balance.top_five_share:.1%}, {one.own_balance.entropy:.2f} bits"
        for one in comparison.sets
    ]
    _draw_bars(axes, [one.own_sizes for one in comparison.sets], comparison.sample_size, labels)
    num = len(comparison.sets[0].own_sizes)
    axes.set_xticks(range(num), [str(rank + 1) for rank in range(num)], fontsize=8)
    axes.set(title="Each set's own clusters", xlabel="cluster, by size", ylabel="% of captions")
    axes.legend()


def draw_common_clusters(axes: "Axes", comparison: Comparison) -> None:
    """Draw how the sets fill the clusters that all of them share."""
    labels = [
        f"{one.captions.name}: top five {one.common_balance.top_five_share:.1%}, {one.common_balance.entropy:.2f} bits"
        for one in comparison.sets
    ]
    _draw_bars(axes, [one.common_sizes for one in comparison.sets], comparison.sample_size, labels)
    names = [" ".join(topic.words[:2]) for topic in comparison.topics]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set(title="Clusters of all sets together", ylabel="% of captions")
    axes.legend()


def draw_class_balance(axes: "Axes", comparison: Comparison) -> None:
    """Draw Lorenz curves of the classes: the nearer to the diagonal, the more even."""
    axes.plot([0, 100], [0, 100], color="#999999", linestyle="--", linewidth=1)
    for number, one in enumerate(comparison.sets):
        if one.figures.classes:
            sizes = np.sort(list(one.figures.classes.values()))
            shares = np.concatenate([[0], 100 * np.cumsum(sizes) / sizes.sum()])
            axes.plot(
                np.linspace(0, 100, len(shares)), shares, color=color_of(number), linewidth=1.8, label=one.captions.name
            )
    axes.set(title="Balance of classes", xlabel="% of classes, smallest first", ylabel="% of captions")
    axes.set(xlim=(0, 100), ylim=(0, 100))
    axes.legend()


def draw_branches(axes: "Axes", comparison: Comparison) -> None:
    """Draw of which branches of WordNet the nouns in the captions are."""
    shares = []
    for one in comparison.sets:
        counts = one.figures.noun_branches
        shares.append({branch: 100 * count / sum(counts.values()) for branch, count in counts.items()})
    mean = {branch: sum(share.get(branch, 0) for share in shares) for share in shares for branch in share}
    branches = sorted(mean, key=lambda branch: (-mean[branch], branch))[:_MAX_BRANCHES]
    height = 0.8 / len(shares)
    for number, (one, share) in enumerate(zip(comparison.sets, shares, strict=True)):
        rows = np.arange(len(branches)) + (number - (len(shares) - 1) / 2) * height
        axes.barh(
            rows, [share.get(branch, 0) for branch in branches], height, color=color_of(number), label=one.captions.name
        )
    axes.set_yticks(range(len(branches)), branches)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(title="Nouns by branch of WordNet", xlabel="% of nouns in captions")
    axes.legend()


def draw_map(axes: "Axes", comparison: Comparison) -> None:
    """Draw the captions as points, and the clusters that all sets share by their words."""
    plane = comparison.map
    for number, one in enumerate(comparison.sets):
        points = plane.positions[plane.sets == number].numpy()
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=14,
            color=color_of(number),
            alpha=0.55,
            linewidths=0,
            label=one.captions.name,
            gid=MAP_GROUP.format(number),
        )
    _label_topics(axes, comparison)
    axes.set(title="Map of captions", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.legend(loc="upper left", markerscale=2)


def list_charts(comparison: Comparison) -> list[Chart]:
    """Give the small charts that the sets have figures for; the map and the common clusters want more room."""
    charts: list[Chart] = [draw_lengths, draw_own_clusters]
    if any(one.figures.classes for one in comparison.sets):
        charts.append(draw_class_balance)
    if all(one.figures.noun_branches for one in comparison.sets):
        charts.append(draw_branches)
    return charts


def _label_topics(axes: "Axes", comparison: Comparison) -> None:
    """Write the words of each topic where its captions are, a little lower where a label stands already."""
    plane = comparison.map
    width, height = (plane.positions.amax(0) - plane.positions.amin(0)).tolist()
    taken: list[tuple[float, float]] = []
    for number, topic in enumerate(comparison.topics):
        members = plane.positions[plane.topics == number]
        if not len(members):
            continue
        x, y = members.median(0).values.tolist()
        while any(abs(x - left) < 0.17 * width and abs(y - low) < 0.029 * height for left, low in taken):
            y -= 0.01 * height
        taken.append((x, y))
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        text = f"{number + 1} {' '.join(topic.words)}"
        axes.text(x, y, text, fontsize=10, ha="center", va="center", color="#111111", bbox=box)


def _draw_bars(axes: "Axes", sizes: Sequence[Sequence[int]], total: int, labels: Sequence[str]) -> None:
    width = 0.8 / len(sizes)
    for number, (row, label) in enumerate(zip(sizes, labels, strict=True)):
        places = np.arange(len(row)) + (number - (len(sizes) - 1) / 2) * width
        axes.bar(places, 100 * np.asarray(row) / total, width, color=color_of(number), label=label)
    axes.grid(visible=False, axis="x")
    axes.margins(x=0.01, y=0.22)  # the legend stands above the bars
