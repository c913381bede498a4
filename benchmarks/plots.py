"""Plots of the documents, made from the files of ``benchmarks/results/``."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from flickr8k_plan import REGIMES

_BLUE, _GRAY = "#2166ac", "#777777"


@dataclass(frozen=True)
class Plot:
    """A plot.

    Args:
        caption: Description of the image, for readers without it.
        paint: Paints the results on matplotlib's axes.
    """

    caption: str
    paint: Callable[[Any, Mapping[str, Any]], None]


def draw(name: str, results: Path, folder: Path) -> Path:
    """Write a plot as a PNG file, and return its path.

    Args:
        name: Name of the plot and of its file of results.
        results: Folder of the results.
        folder: Folder of the image.
    """
    from matplotlib.figure import Figure

    file = results / f"{name}.json"
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    PLOTS[name].paint(axes, json.loads(file.read_text("utf-8")))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=150, metadata={"Description": digest(file)})
    return path


def digest(file: Path) -> str:
    """Return a checksum of a file, which its plot has as the text ``Description``."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _paint_label_multiplier(axes: Any, results: Mapping[str, Any]) -> None:
    rows, photos = results["rows"], results["photos"]
    alone = {row["num_photos"]: row["real"]["cider"] for row in rows} | {photos["num_photos"]: photos["cider"]}
    mixed = {row["num_photos"]: row["mixed"]["cider"] for row in rows if "mixed" in row}
    axes.plot(*zip(*alone.items(), strict=True), "o-", color=_GRAY, label="photos alone")
    axes.plot(
        *zip(*mixed.items(), strict=True),
        "o-",
        color=_BLUE,
        label="with generated pairs for the captions of the others",
    )
    for row in rows:
        if (equals := row.get("equals")) is not None:
            score = row["mixed"]["cider"]
            axes.plot([row["num_photos"], equals], [score, score], ":", color=_BLUE, linewidth=1)
            side = "right" if equals < row["num_photos"] else "left"  # away from the point
            text = f"about {round(equals, -2):,d} photos"
            axes.annotate(text, (equals, score), color=_BLUE, fontsize=8, ha=side, va="top")
    axes.set_xscale("log")
    axes.set_xticks(list(alone), [f"{size:,d}" for size in alone])
    axes.minorticks_off()
    axes.set_xlabel("real photos")
    axes.set_ylabel("CIDEr")
    axes.legend(frameon=False, fontsize=8)


def _paint_dose_response(axes: Any, results: Mapping[str, Any]) -> None:
    rows = results["rows"]
    entropy = [row["entropy"] for row in rows]
    axes.errorbar(
        entropy, [row["cider"] for row in rows], [row["cider_sd"] or 0 for row in rows], fmt="o", color=_BLUE, capsize=3
    )
    for row in rows:
        text = f"{row['num_clusters']} cluster{'s' if row['num_clusters'] > 1 else ''}"
        axes.annotate(text, (row["entropy"], row["cider"]), (6, -3), textcoords="offset points", fontsize=8)
    axes.set_xlabel("entropy of the captions over 20 clusters, bits")
    axes.set_ylabel("CIDEr, mean and standard deviation")


def _paint_flickr8k(axes: Any, results: Mapping[str, Any]) -> None:
    kinds = {"equal": ("equal steps", _GRAY, 0.15), "best": ("each at its best", _BLUE, -0.15)}
    gains = {
        kind: {name: one["gain"]["cider"] for name, one in results["regimes"][kind].items() if "gain" in one}
        for kind in kinds
    }
    names = list(dict.fromkeys(name for group in gains.values() for name in group))[::-1]
    for kind, (label, color, shift) in kinds.items():
        for name, (value, low, high) in gains[kind].items():
            place = names.index(name) + shift
            axes.plot([low, high], [place, place], color=color)
            axes.plot(value, place, "o", color=color, label=label)
            label = ""  # one entry of the legend
    axes.axvline(0, color="black", linewidth=0.8)
    labels = {regime.name: fill(regime.label, 34) for regime in REGIMES}
    axes.set_yticks(range(len(names)), [labels[name] for name in names], fontsize=8)
    axes.figure.set_figheight(max(3.6, 0.45 * len(names)))  # labels have up to three lines
    axes.set_ylim(-0.5, len(names) - 0.5)
    axes.locator_params(axis="x", nbins=5)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("CIDEr over the 1,000 photos alone, with 95 % intervals", fontsize=9)
    axes.legend(frameon=False, fontsize=8)


PLOTS = {
    "flickr8k_gain": Plot("Gains in CIDEr of all regimes over 1,000 photos, with intervals", _paint_flickr8k),
    "label_multiplier": Plot("CIDEr over the number of photos, with and without pairs", _paint_label_multiplier),
    "dose_response": Plot("CIDEr over the entropy of the captions of the generated pairs", _paint_dose_response),
}
