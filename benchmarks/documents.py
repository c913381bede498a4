"""Tables and plots of the documents, made from ``benchmarks/results/*.json``.

``python benchmarks/documents.py`` writes them into the documents, each below its mark ``<!-- NAME -->``. Documents
contain no figure without a file: benchmarks without one are listed below the mark ``not_measured``.
"""

import argparse
import ast
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import dropwhile
from pathlib import Path
from typing import Any

from flickr8k_plan import PROBES, REGIMES
from plots import PLOTS, draw
from report import RESULTS

ROOT = Path(__file__).parents[1]
README, DOCUMENT = ROOT / "README.md", ROOT / "docs" / "results.md"
_SCENES = {
    "real": "rendered images",
    "mixed": "rendered images + generated pairs",
    "blank": "rendered images + the same captions without images",
    "shuffled": "rendered images + shuffled pairs",
    "written": "rendered images + generated pairs for captions by SmolLM2-135M (`scenes/captions.yaml`)",
}
_NONE = "> No finished runs."
Results = Mapping[str, Any]


def fill(document: str, texts: Mapping[str, str]) -> str:
    """Return a document with the table, image or list after each mark, ``<!-- name -->``, replaced.

    Raises:
        ValueError: If the document lacks a mark.
    """
    for name, text in texts.items():
        before, mark, after = document.partition(f"<!-- {name} -->\n\n")
        if not mark:
            raise ValueError(f"The document has no mark <!-- {name} -->; expected one with an empty line below it.")
        rest = "".join(dropwhile(lambda line: line.startswith(("|", "![", "*", ">")), after.splitlines(keepends=True)))
        document = f"{before}{mark}{text}\n{rest if rest.startswith(chr(10)) else chr(10) + rest}"
    return document


def make_texts(document: Path, folder: Path = RESULTS) -> dict[str, str]:
    """Return the text of each mark of a document: of the finished benchmarks and, in the results, a list of the others.

    Args:
        document: The README, or the document of the results.
        folder: Folder of the results.
    """
    tables = _TABLES[document]
    files = {name: folder / f"{name}.json" for name, _ in tables.values()}
    results = {name: json.loads(path.read_text("utf-8")) for name, path in files.items() if path.exists()}
    texts = {mark: function(results[name]) for mark, (name, function) in tables.items() if name in results}
    if document == README:
        return texts
    plots = {
        f"{name}_plot": f"![{plot.caption}](results/{name}.png)" for name, plot in PLOTS.items() if name in results
    }
    missing = [f"* `python benchmarks/{name}.py`: {_summary(name)}" for name in files if name not in results]
    return texts | plots | {"not_measured": "\n".join(missing)}


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are aligned to the right."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def signed(value: float | None, digits: int = 3) -> str:
    """Return a number with its sign; empty if unknown."""
    return "" if value is None else f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def interval(values: Sequence[float] | None, digits: int = 3) -> str:
    """Return a difference with its interval, such as ``+0.048 (0.037 … 0.060)``; empty if unknown."""
    if not values:
        return ""
    low, high = (f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") for value in values[1:])
    return f"{signed(values[0], digits)} ({low} … {high})"


def spread(figures: Results, name: str = "cider") -> str:
    """Return a mean with its standard deviation over runs, if there are several."""
    deviation = figures.get(f"{name}_sd")
    return f"{figures[name]:.3f}" + ("" if deviation is None else f" ± {deviation:.3f}")


def scenes(results: Results) -> str:
    """Return the table of ``scenes_gain.py``."""
    rows = []
    for name, label in _SCENES.items():
        if name in results["held_out"]:
            held_out, others = results["held_out"][name], results["in_training"][name]
            gain = held_out.get("gain")
            percent = interval([100 * value for value in gain], 0) if gain else ""
            cells = [
                spread(held_out),
                percent,
                spread(others),
                f"{held_out['bleu_4']:.3f}",
                f"{held_out['rouge_l']:.3f}",
            ]
            rows.append([label, str(held_out["num_runs"]), *cells])
    headings = ["the captioner trains on", "runs", "CIDEr on held-out combinations", "gain, %", "CIDEr on the others"]
    return table([*headings, "BLEU-4, held out", "ROUGE-L, held out"], rows)


def flickr8k(results: Results, kind: str) -> str:
    """Return a table of ``flickr8k_gain.py``.

    Args:
        results: Its results.
        kind: ``equal`` for the equal point, ``best`` for the chosen points.
    """
    figures = results["regimes"][kind]
    rows = [
        [regime.label, str(one["num_runs"]), spread(one), *_gains(one.get("gain"))]
        for regime in REGIMES
        if (one := figures.get(regime.name))
    ]
    headings = ["the captioner trains on", "runs", "CIDEr", "over 1,000 photos", "BLEU-4", "ROUGE-L"]
    return table(headings, rows) if rows else _NONE


def controls(results: Results) -> str:
    """Return the table of generated pairs against their captions without images, at the equal point."""
    return _gains_over(results, "gain_over_control")


def second_stage(results: Results) -> str:
    """Return the table of captioners optimized for CIDEr against those that they start from, at the equal point."""
    return _gains_over(results, "gain_over_start")


def _gains_over(results: Results, title: str) -> str:
    rows = [
        [regime.label, str(gain["num_draws"]), *_gains(gain)]
        for regime in REGIMES
        if (gain := results["regimes"]["equal"].get(regime.name, {}).get(title))
    ]
    return table(["the captioner trains on", "draws", "CIDEr", "BLEU-4", "ROUGE-L"], rows) if rows else _NONE


def _gains(gain: Results | None) -> list[str]:
    """Return the cells of a gain: CIDEr, BLEU-4 and ROUGE-L; empty if there is none."""
    gain = gain or {}
    return [
        interval(gain.get("cider")),
        signed(next(iter(gain.get("bleu_4", ())), None)),
        interval(gain.get("rouge_l")),
    ]


def probes(results: Results) -> str:
    """Return the table of ``flickr8k_probes.py``."""
    labels = {one.name: one.label for one in (*REGIMES, *PROBES)}
    rows = [
        [
            labels[name],
            str(one["num_runs"]),
            spread(one),
            interval(one.get("gain", {}).get("cider")),
            interval(one.get("gain_of_change")),
        ]
        for name, one in results["regimes"].items()
    ]
    headings = ["the captioner trains on", "runs", "CIDEr, held-back photos", "over 1,000 photos"]
    return table([*headings, "gain of the change"], rows)


def headline(results: Results) -> str:
    """Return the table of the README: CIDEr at equal steps with photos alone and with generated pairs."""
    figures = results["regimes"]["equal"]
    names = ("real", "mixed", "written", "photos")
    rows = [
        [regime.label, str(one["num_runs"]), spread(one), interval(one.get("gain", {}).get("cider"))]
        for regime in REGIMES
        if regime.name in names and (one := figures.get(regime.name))
    ]
    return table(["the captioner trains on", "runs", "CIDEr", "gain and 95 % interval"], rows)


def gap(results: Results) -> str:
    """Return the fractions of the gap that generated pairs close."""
    rows = []
    for name, label in (("equal", "equal steps"), ("best", "best against best")):
        if (value := results.get(f"gap_closed_{name}")) is not None:
            low, high = results[f"gap_closed_{name}_interval"]
            num_draws = str(results[f"gap_closed_{name}_num_draws"])
            limits = f"{low:.0%} … {high:.0%}".replace("-", "\N{MINUS SIGN}")
            rows.append([label, num_draws, f"{value:.0%}", limits])
    return table(["fraction of the gap between 1,000 and 5,500 photos", "draws", "closed", "95 % interval"], rows)


def points(results: Results) -> str:
    """Return the chosen points."""
    has_pairs = {regime.name: bool(regime.pairs) for regime in REGIMES}
    rows = [
        [
            f"`{name}`",
            *(str(point[key]) for key in ("steps", "dropout", "weight_decay", "levels")),
            str(point["synthetic_fraction"]) if has_pairs[name] else "",
        ]
        for name, point in results["points"].items()
    ]
    headings = ["regime", "steps", "dropout", "weight decay", "levels", "fraction of generated pairs"]
    return table(headings, rows) if rows else _NONE


def label_multiplier(results: Results) -> str:
    """Return the table of ``label_multiplier.py``."""
    rows = []
    for row in results["rows"]:
        cells = ["", "", ""]
        if mixed := row.get("mixed"):
            equals = "outside of the curve" if row["equals"] is None else f"about {round(row['equals'], -2):,d}"
            cells = [spread(mixed), interval(row["gain"]), equals]
        rows.append([f"{row['num_photos']:,d}", spread(row["real"]), *cells])
    photos = results["photos"]
    rows.append([f"{photos['num_photos']:,d}", spread(photos), "", "", ""])
    headings = ["photos", "CIDEr, photos alone", "with generated pairs", "gain", "equals as many photos"]
    return table(headings, rows)


def dose_response(results: Results) -> str:
    """Return the table of ``dose_response.py``."""
    rows = [
        [str(row["num_clusters"]), f"{row['entropy']:.2f}", str(row["num_runs"]), spread(row), f"{row['bleu_4']:.3f}"]
        for row in results["rows"]
    ]
    low, high = results["rank_correlation_interval"]
    value = interval([results["rank_correlation"], low, high], 2)
    rows.append(["rank correlation of entropy and CIDEr", "", "", value, ""])
    return table(["clusters", "entropy, bits", "runs", "CIDEr", "BLEU-4"], rows)


def single_runs(results: Results) -> str:
    """Return the table of ``single_runs.py``."""
    rows = []
    for row in results["rows"]:
        overlays = ", ".join(f"`{name}`" for name in row["overlays"]) or "none"
        scores = [f"{row[name]:.3f}" for name in ("cider", "bleu_4", "rouge_l")]
        rows.append([row["data"], overlays, f"{row['num_steps']:,d}", *scores, f"{row['human_score']:.2f}"])
    headings = [
        "images",
        "overlays",
        "steps",
        "CIDEr",
        "BLEU-4",
        "ROUGE-L",
        "CIDEr of one reference against the others",
    ]
    return table(headings, rows)


def pair_likelihood(results: Results) -> str:
    """Return the table of ``pair_likelihood.py``."""
    labels = {
        "photos": "photos with their captions",
        "people": "generated images, captions by people",
        "written": "generated images, captions by the language model",
    }
    rows = [
        [labels[name], f"{one['num_pairs']:,d}", _level(one["without_image"]), interval(one["ratio"])]
        for name, one in results["pairs"].items()
    ]
    return table(["pairs", "captions", "cross-entropy without an image", "log-likelihood ratio"], rows)


def _level(values: Sequence[float]) -> str:
    """Return a value with its interval, such as ``3.10 (3.05 … 3.15)``."""
    value, low, high = values
    return f"{value:.2f} ({low:.2f} … {high:.2f})"


_Tables = Mapping[str, tuple[str, Callable[[Results], str]]]
_TABLES: Mapping[Path, _Tables] = {
    README: {"headline": ("flickr8k_gain", headline)},
    DOCUMENT: {
        "single_runs": ("single_runs", single_runs),
        "scenes": ("scenes_gain", scenes),
        "gap": ("flickr8k_gain", gap),
        "flickr8k_equal": ("flickr8k_gain", partial(flickr8k, kind="equal")),
        "flickr8k_controls": ("flickr8k_gain", controls),
        "flickr8k_second_stage": ("flickr8k_gain", second_stage),
        "flickr8k_best": ("flickr8k_gain", partial(flickr8k, kind="best")),
        "points": ("flickr8k_gain", points),
        "flickr8k_probes": ("flickr8k_probes", probes),
        "pair_likelihood": ("pair_likelihood", pair_likelihood),
        "label_multiplier": ("label_multiplier", label_multiplier),
        "dose_response": ("dose_response", dose_response),
    },
}


def _summary(benchmark: str) -> str:
    """Return the first line of a benchmark's docstring."""
    module = ast.parse((ROOT / "benchmarks" / f"{benchmark}.py").read_text("utf-8"))
    return (ast.get_docstring(module) or "").partition("\n")[0]


def main() -> None:
    """Write the tables and plots."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for document in (README, DOCUMENT):
        document.write_text(fill(document.read_text("utf-8"), make_texts(document)), "utf-8")
    for name in PLOTS:
        if (RESULTS / f"{name}.json").exists():
            draw(name, RESULTS, ROOT / "docs" / "results")


if __name__ == "__main__":
    main()
