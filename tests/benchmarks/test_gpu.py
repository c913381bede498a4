import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gpu import SECTIONS, find_ratio, parse_figures, run_process, run_sections
from gpu_measure import idle_fraction

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def test_sections_without_time_are_skipped_and_the_others_kept() -> None:
    def launch(name: str, left: float) -> dict[str, Any]:
        time.sleep(0.2)
        return {"name": name, "left": left}

    results = run_sections(launch, ["first", "second"], 20.1)
    assert results["first"]["name"] == "first"
    assert results["first"]["left"] == pytest.approx(20.1, abs=0.1)
    assert results["second"] == "skipped: time"


def test_figures_before_an_error_or_a_stop_are_kept() -> None:
    emits = 'print("75 %" + chr(123) + \'"ms": 3.5}\', flush=True);'
    failed = run_process([sys.executable, "-c", emits + 'raise ValueError("no kernel")'], 60)
    assert failed["ms"] == 3.5
    assert failed["error"].startswith("exit code 1")
    assert failed["error"].rstrip().endswith("ValueError: no kernel")
    stopped = run_process([sys.executable, "-c", emits + "import time; time.sleep(600)"], 3)
    assert stopped == {"ms": 3.5, "error": "stopped after 3 seconds"}


def test_only_lines_of_json_are_figures() -> None:
    assert parse_figures('{"a": 1}\n{not}\n{"b"\nplain\n  0:01 {"c": {"d": 2}}') == {"a": 1, "c": {"d": 2}}


def test_the_ratio_is_of_the_largest_batch_of_both() -> None:
    figures = {"diffusers_64_images_per_second": 10, "diffusers_256_images_per_second": 20}
    figures |= {"eager_64_images_per_second": 15, "compiled_256_images_per_second": 50}
    assert find_ratio(figures) == 2.5
    assert find_ratio(figures | {"diffusers_256_images_per_second": 0}) == 1.5
    assert str(find_ratio("skipped: time")) == "nan"


def test_idle_time_is_what_no_kernel_covers() -> None:
    assert idle_fraction([(10.0, 20.0), (12.0, 15.0), (18.0, 30.0), (35.0, 50.0)]) == pytest.approx(5 / 40)
    assert idle_fraction([]) is None


@pytest.mark.slow
def test_every_section_runs_on_a_cpu() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--quick"], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ratio"] > 0
    sections = result["sections"]
    assert list(sections) == list(SECTIONS)
    assert {name: figures.get("error") for name, figures in sections.items()} == dict.fromkeys(SECTIONS)
    assert sections["smoke"]["num_captions"] == 8
    assert sections["train"]["eager_3_ms"] > 0
    assert sections["caption"]["beams_3_tokens_per_second"] > 0
    assert sections["caption"]["tokenize_1024_ms"] > 0
    assert sections["host"]["generator_stops_per_step"] == 0  # without a GPU
