import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from documents import DOCUMENT, README, ROOT, fill, interval, make_texts, signed, spread
from plots import PLOTS, digest, draw
from report import RESULTS

RUN = {"num_runs": 4, "cider": 0.4, "cider_sd": 0.01, "bleu_4": 0.2, "rouge_l": 0.5}
GAINS = {"num_draws": 2, "cider": [0.02, -0.01, 0.05], "bleu_4": [-0.003], "rouge_l": [0.01, 0.004, 0.02]}
LABEL: dict[str, Any] = {
    "rows": [{"num_photos": 1000, "real": RUN, "mixed": RUN | {"cider": 0.45}, "gain": [0.05, 0.03, 0.07],
              "equals": 2100},
             {"num_photos": 3000, "real": RUN | {"cider": 0.46}}],
    "photos": {"num_photos": 5500, **RUN, "cider": 0.5},
}  # fmt: skip
PROBES: dict[str, Any] = {
    "regimes": {"real": RUN, "mirrored": RUN | {"gain": GAINS, "gain_of_change": [0.01, 0.0, 0.02]}},
}
DOSE: dict[str, Any] = {
    "rows": [{"num_clusters": 1, "entropy": 0.0, **RUN}, {"num_clusters": 20, "entropy": 4.3, **RUN}],
    "rank_correlation": 0.9,
    "rank_correlation_interval": [-0.1, 1.0],
}
GAIN: dict[str, Any] = {
    "gap_closed_best": 0.71,
    "gap_closed_best_interval": [-0.1, 0.9],
    "gap_closed_best_num_draws": 1,
    "points": {"real": {"steps": 800, "dropout": 0.3, "weight_decay": 0.2, "levels": 4, "synthetic_fraction": 0.5}},
    "regimes": {
        "best": {"real": RUN, "mixed": RUN | {"gain": GAINS}},
        "equal": {
            "real": RUN,
            "mixed": RUN | {"gain_over_control": GAINS},
            "real-cider": RUN | {"gain_over_start": GAINS},
        },
    },
}


@pytest.mark.parametrize("document", [README, DOCUMENT], ids=lambda path: path.name)
def test_documents_have_the_tables_of_the_results(document: Path) -> None:
    text, tables = document.read_text("utf-8"), make_texts(document)
    assert fill(text, tables) == text, "python benchmarks/documents.py"
    assert set(re.findall("<!-- (.*) -->", text)) == tables.keys()  # no section without results


@pytest.mark.parametrize("name", PLOTS)
def test_plots_are_those_of_the_results(name: str) -> None:
    results, plot = RESULTS / f"{name}.json", ROOT / "docs" / "results" / f"{name}.png"
    assert results.exists() == plot.exists(), "python benchmarks/documents.py"
    if plot.exists():
        with Image.open(plot) as image:
            assert image.info["Description"] == digest(results), "python benchmarks/documents.py"


def test_results_have_their_origin() -> None:
    for path in RESULTS.glob("*.json"):
        content = json.loads(path.read_text("utf-8"))
        assert {"benchmark", "command", "commit", "versions", "machine"} <= content.keys(), path
        assert not str(content["commit"]).endswith("-dirty"), path


def test_tables_show_the_figures_of_the_files(tmp_path: Path) -> None:
    for name, content in {
        "label_multiplier": LABEL,
        "dose_response": DOSE,
        "flickr8k_gain": GAIN,
        "flickr8k_probes": PROBES,
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    tables = make_texts(DOCUMENT, tmp_path)
    assert (
        "| 1,000 | 0.400 ± 0.010 | 0.450 ± 0.010 | +0.050 (0.030 … 0.070) | about 2,100 |" in tables["label_multiplier"]
    )
    assert "| 3,000 | 0.460 ± 0.010 |  |  |  |" in tables["label_multiplier"]
    assert "+0.90 (\N{MINUS SIGN}0.10 … 1.00)" in tables["dose_response"]
    assert "| best against best | 1 | 71% | \N{MINUS SIGN}10% … 90% |" in tables["gap"]
    gains = "+0.020 (\N{MINUS SIGN}0.010 … 0.050) | \N{MINUS SIGN}0.003 | +0.010 (0.004 … 0.020) |"
    assert gains in tables["flickr8k_best"]
    assert f"| 2 | {gains}" in tables["flickr8k_controls"]
    assert f"| 1,000 photos, then optimized for CIDEr | 2 | {gains}" in tables["flickr8k_second_stage"]
    assert "+0.020 (\N{MINUS SIGN}0.010 … 0.050) | +0.010 (0.000 … 0.020) |" in tables["flickr8k_probes"]
    assert tables["flickr8k_best"].count("\n") == 3  # two headings, real, mixed
    assert tables["flickr8k_equal"].count("\n") == 4
    assert "scenes" not in tables
    assert "* `python benchmarks/scenes_gain.py`: Gain in CIDEr on held-out combinations" in tables["not_measured"]
    assert "flickr8k_gain" not in tables["not_measured"]
    assert tables["label_multiplier_plot"].startswith("![")
    assert make_texts(README, tmp_path)["headline"].count("\n| 1,000 photos | 4 | 0.400 ± 0.010 |  |") == 1


@pytest.mark.parametrize(
    ("name", "content"), [("label_multiplier", LABEL), ("dose_response", DOSE), ("flickr8k_gain", GAIN)]
)
def test_plots_are_drawn(tmp_path: Path, name: str, content: dict[str, Any]) -> None:
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
    path = draw(name, tmp_path, tmp_path / "plots")
    with Image.open(path) as image:
        assert image.width > 500
        assert image.info["Description"] == digest(tmp_path / f"{name}.json")


def test_numbers_have_signs_and_intervals() -> None:
    assert (signed(-0.0123), signed(None)) == ("\N{MINUS SIGN}0.012", "")
    assert interval([0.01, -0.02, 0.04]) == "+0.010 (\N{MINUS SIGN}0.020 … 0.040)"
    assert spread({"cider": 0.4, "cider_sd": None}) == "0.400"


def test_tables_take_each_other_s_place() -> None:
    once = fill("<!-- a -->\n\nbehind\n", {"a": "| 1 |"})
    assert once == "<!-- a -->\n\n| 1 |\n\nbehind\n"
    assert fill(once, {"a": "| 2 |\n| 3 |"}) == "<!-- a -->\n\n| 2 |\n| 3 |\n\nbehind\n"
    assert fill(once, {"a": "* 3"}) == "<!-- a -->\n\n* 3\n\nbehind\n"
    with pytest.raises(ValueError, match="no mark <!-- b -->"):
        fill(once, {"b": "| 1 |"})
