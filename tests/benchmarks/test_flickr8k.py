"""The experiments on Flickr8k with a stand-in for ``synth2``."""

import json
import re
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import dose_response
import flickr8k_chain
import flickr8k_gain
import flickr8k_plan
import flickr8k_probes
import intervals
import label_multiplier
import regimes
import report
import tasks
from flickr8k_chain import CHOICE, split
from flickr8k_plan import EQUAL, GRID, REGIMES, Point
from flickr8k_runs import Experiment, best_point, list_cells
from intervals import Cell
from regimes import VALIDATION, Run
from synth2_lightning.cli import main
from tasks import run_tasks

NUM_TRAIN, NUM_HELD_BACK, NUM_REAL = 60, 12, 8
BY_NAME = {regime.name: regime for regime in REGIMES}
COLORS = ("red", "blue", "green", "black", "white")


def write_captions(path: Path, ids: range) -> None:
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in ids]
    texts = [(number, f"a {COLORS[number % 5]} dog number {number} runs") for number in ids]
    annotations = [{"image_id": number, "caption": text} for number, text in texts]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))


class StandIn:
    """Stand-in for the command ``synth2``: records the commands, and writes the files that the benchmark reads."""

    def __init__(self) -> None:
        self.commands: list[tuple[Path, list[str]]] = []

    def __call__(self, words: Sequence[str], log: Path, num_threads: int, folder: Path) -> None:
        self.commands.append((folder, list(words)))
        if words[0] == "select":  # fewer clusters have a lower entropy
            manifest = folder / words[3] / "manifest.json"
            manifest.parent.mkdir()
            manifest.write_text(json.dumps({"balance_after": {"entropy": float(words[-1])}}))
        if words[0] not in ("fit", "validate"):
            return
        content = json.loads((folder / "data/flickr8k/captions_val.json").read_text())
        place = log.parent / "cider" / "val-step=800"
        place.mkdir(parents=True, exist_ok=True)
        annotations = content["annotations"]
        num_right = self.quality(log.parents[words[0] == "validate"]) * len(annotations)
        rows = []
        for number, annotation in enumerate(annotations):
            text = annotation["caption"]
            caption = text if number < num_right else "a dog"
            row = {"key": str(annotation["image_id"]), "references": [text], "caption": caption}
            rows.append(json.dumps(row) + "\n")
        (place / "predictions.jsonl").write_text("".join(rows))
        (log.parent / "metrics.csv").write_text("step,val/loss\n800,2.0\n")

    @staticmethod
    def quality(folder: Path) -> float:
        """Return the fraction of right captions, higher for more photos, more clusters and one point of the grid."""
        regime, point = folder.parts[-3:-1]
        (num_photos,) = (int(part.partition("-")[2]) for part in folder.parts if re.fullmatch(r"photos-\d+", part))
        quality = {300: 0.2, 1000: 0.4, 3000: 0.6}.get(num_photos, 0.4)
        if regime.startswith("selection-"):
            quality = int(regime.partition("-")[2]) / 30
        quality += {"mixed": 0.15, "photos": 0.4}.get(regime, 0.0)
        return quality + 0.1 * point.startswith("1600-0.2-0.05-4")


@pytest.fixture
def synth2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")  # without runs of the real experiment
    monkeypatch.setattr(regimes, "run_command", stand_in)
    monkeypatch.setattr(flickr8k_chain, "run_command", stand_in)
    monkeypatch.setattr(flickr8k_plan, "NUM_HELD_BACK", NUM_HELD_BACK)
    monkeypatch.setattr(tasks, "commit", lambda: None)  # it starts Git
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return stand_in


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    write_captions(data / "captions_train.json", range(NUM_TRAIN))
    return Experiment(tmp_path / "runs", data, 1, NUM_REAL)


def photo_ids(path: Path) -> list[int]:
    return [image["id"] for image in json.loads(path.read_text())["images"]]


def test_the_choice_reads_held_back_photos_only(synth2: StandIn, experiment: Experiment) -> None:
    # There are no validation photos yet, so reading them would fail.
    assert not (experiment.data / "captions_val.json").exists()
    named = [BY_NAME["real"], BY_NAME["mixed"], BY_NAME["shuffled"]]
    run_tasks(experiment.choice_tasks(named), 2)

    held_back = {str(number) for number in range(NUM_TRAIN - NUM_HELD_BACK, NUM_TRAIN)}
    folder = experiment.run_folder(BY_NAME["mixed"], EQUAL, Cell(0, 0, 0))
    assert set(regimes.read(folder).scores) == held_back
    assert {place.name for place, _ in synth2.commands} == {CHOICE}
    choice = experiment.choose(named)
    assert choice.keys() == {"real", "mixed"}  # controls use the point of the regime that they control
    assert best_point(choice["real"]) == Point(1600, 0.2, 0.05, 4)


@pytest.mark.usefixtures("synth2")
def test_a_choice_by_validation_photos_is_refused(experiment: Experiment) -> None:
    run_tasks(experiment.choice_tasks([BY_NAME["real"]]), 1)
    folder = experiment.run_folder(BY_NAME["real"], EQUAL, Cell(0, 0, 0))
    path = folder / "cider" / "val-step=800" / "predictions.jsonl"
    row = {"key": "900001", "caption": "a dog", "references": ["a dog"]}
    path.write_text(path.read_text() + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=r"1 photos that are not held back, such as 900001; expected only the 12"):
        experiment.choose([BY_NAME["real"]])


def test_validated_runs_read_validation_photos_and_the_photos_of_their_draw(
    synth2: StandIn, experiment: Experiment
) -> None:
    write_captions(experiment.data / "captions_val.json", range(9000, 9010))
    cell = Cell(1, 0, 5)
    run_tasks(experiment.tasks(BY_NAME["mixed"], EQUAL, cell, is_validated=True), 1)
    (run,) = experiment.read(BY_NAME["mixed"], EQUAL, [cell, Cell(1, 0, 6)]).values()
    assert set(run.scores) == {str(number) for number in range(9000, 9010)}
    assert run.loss == 2.0

    chain = experiment.chain(1)
    train = photo_ids(chain.folder / VALIDATION / "data/flickr8k/captions_train.json")
    assert train == split(range(NUM_TRAIN), 1)[0]
    assert photo_ids(chain.folder / "captions_withheld.json") == train[NUM_REAL:]
    (training, fit), (validation, words) = synth2.commands[-2:]
    assert (training.name, validation.name) == (CHOICE, VALIDATION)
    assert (fit[0], words[0]) == ("fit", "validate")
    assert Path(words[words.index("--ckpt_path") + 1]).parent.parent == experiment.run_folder(
        BY_NAME["mixed"], EQUAL, cell
    )
    assert words[-2:] == ["5", "--data.init_args.seed=5"]
    assert "--data.init_args.synthetic.init_args.shards=shards/synthetic-own-images-g0-l4" in words
    assert f"--data.init_args.real.init_args.photos.init_args.limit={NUM_REAL}" in words
    assert not any(str(experiment.root) in word for word in fit if "settings.yaml" not in word)


def test_commands_of_the_chain_come_in_their_order_and_once(synth2: StandIn, experiment: Experiment) -> None:
    cells = (Cell(0, 0, 0), Cell(0, 1, 0))
    run_tasks([task for cell in cells for task in experiment.tasks(BY_NAME["mixed"], EQUAL, cell)], 1)
    starts = [" ".join(words[:3]).replace("experiments/flickr8k/", "") for _, words in synth2.commands]
    assert starts[:3] == [
        "vocabulary data/flickr8k/captions_train.json --out",
        "fit --config codebook.yaml",
        "predict --config tokenize.yaml",
    ]
    assert starts.count("fit --config generator.yaml") == starts.count("predict --config synthesize.yaml") == 2
    assert starts.count("predict --config tokenize.yaml") == 1


@pytest.fixture
def run_benchmark(
    synth2: StandIn, experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Return a function that runs a benchmark with one job, and returns what it saved."""
    assert not synth2.commands
    write_captions(experiment.data / "captions_val.json", range(9000, 9020))
    monkeypatch.setattr(flickr8k_chain.Chain, "_write_control", lambda *_: None)
    monkeypatch.setattr(intervals.estimate, "__defaults__", (100,))

    def run(benchmark: ModuleType, *words: str) -> dict[str, Any]:
        places = ("--folder", str(experiment.root), "--data", str(experiment.data), "--jobs", "1")
        monkeypatch.setattr(sys, "argv", [f"{benchmark.__name__}.py", *places, *words])
        benchmark.main()
        file = tmp_path / "results" / f"{benchmark.__name__}.json"
        saved: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return saved

    return run


def test_the_gain_is_measured_at_equal_steps_and_best_against_best(
    synth2: StandIn, run_benchmark: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--only", "real", "mixed", "photos", "blank", "--seeds", "0")
    assert run_benchmark(flickr8k_gain, *words, "--list") == {}
    assert "Left: " in capsys.readouterr().out
    assert not synth2.commands

    saved = run_benchmark(flickr8k_gain, *words)
    assert saved["points"].keys() == {"real", "mixed", "photos", "blank"}
    assert saved["points"]["real"] == {
        "steps": 1600,
        "dropout": 0.2,
        "weight_decay": 0.05,
        "levels": 4,
        "synthetic_fraction": 0.5,
    }
    assert len(saved["choice"]["mixed"]) == len(GRID)
    assert len(saved["choice"]["real"]) == len(GRID) - 1  # without that of more generated pairs
    # 0.15 of 0.4 more captions are right; CIDEr is nearly proportional to their number.
    assert 0.2 < saved["gap_closed_equal"] < 0.6
    assert 0.2 < saved["gap_closed_best"] < 0.6
    low, high = saved["gap_closed_best_interval"]
    assert low <= saved["gap_closed_best"] <= high
    best = saved["regimes"]["best"]
    assert (best["real"]["num_runs"], best["mixed"]["num_runs"], best["blank"]["num_runs"]) == (2, 4, 2)
    for title in ("gain", "gain_over_control"):
        gain = best["mixed"][title]
        assert gain["num_draws"] == 2
        assert all(gain[metric][0] > 0 for metric in ("cider", "bleu_4", "rouge_l"))
    assert "genpair_gain" not in saved
    assert {(row["draw"], row["generator"]) for row in saved["runs"]["best"]} == {(0, 0), (0, 1), (1, 0), (1, 1)}

    num_commands = len(synth2.commands)
    assert run_benchmark(flickr8k_gain, *words, "--report")["regimes"] == saved["regimes"]
    assert run_benchmark(flickr8k_gain, *words)["regimes"] == saved["regimes"]
    assert len(synth2.commands) == num_commands  # all runs are finished


def test_finished_runs_are_reported_before_all_are_finished(
    run_benchmark: Callable[..., dict[str, Any]], experiment: Experiment
) -> None:
    for regime in ("real", "mixed"):
        run_tasks(replace(experiment, num_real=1000).tasks(BY_NAME[regime], EQUAL, Cell(0, 0, 0), True), 1)
    saved = run_benchmark(flickr8k_gain, "--report")
    assert saved["regimes"]["best"] == saved["points"] == {}
    assert saved["regimes"]["equal"]["mixed"]["gain"]["cider"][0] > 0
    assert len(saved["runs"]["equal"]) == 2


def test_archived_runs_are_not_trained_again(
    synth2: StandIn, run_benchmark: Callable[..., dict[str, Any]], experiment: Experiment
) -> None:
    words = ("--only", "real", "mixed", "--draws", "0", "--generators", "0")
    saved = run_benchmark(flickr8k_gain, *words, "--seeds", "0")
    shutil.rmtree(experiment.root)  # as on another machine
    synth2.commands.clear()
    again = run_benchmark(flickr8k_gain, *words, "--seeds", "0")
    assert not synth2.commands
    assert again["runs"] == saved["runs"]
    best, same = (one["regimes"]["best"]["mixed"] for one in (saved, again))
    assert same["gain"]["rouge_l"] == pytest.approx(best["gain"]["rouge_l"], abs=2e-3)  # scores of photos are rounded
    more = run_benchmark(flickr8k_gain, *words, "--seeds", "0", "1")
    assert more["regimes"]["best"]["mixed"]["num_runs"] == 2
    trained = [words for _, words in synth2.commands if words[0] == "fit" and "seed=1" in words[-1]]
    assert len(trained) == 4  # two regimes at two points

    write_captions(experiment.data / "captions_val.json", range(9000, 9010))
    with pytest.raises(ValueError, match=r"has 20 scores of RunKey.*there are 10 photos; expected"):
        run_benchmark(flickr8k_gain, *words)


def test_photos_that_equal_pairs_are_interpolated_for_each_number(run_benchmark: Callable[..., dict[str, Any]]) -> None:
    words = ("--draws", "0", "--generators", "0", "--seeds", "0")
    saved = run_benchmark(label_multiplier, *words)
    assert [row["num_photos"] for row in saved["rows"]] == [300, 1000, 3000]
    assert 300 < saved["rows"][0]["equals"] < 1000
    assert 1000 < saved["rows"][1]["equals"] < 3000
    assert saved["rows"][1]["gain"][0] > 0
    assert saved["photos"]["num_photos"] == 5500
    assert run_benchmark(label_multiplier, *words, "--report")["rows"] == saved["rows"]


def test_numbers_of_photos_without_pairs_yet_are_points_of_the_curve(
    run_benchmark: Callable[..., dict[str, Any]], experiment: Experiment
) -> None:
    for size, regime in ((300, "real"), (1000, "real"), (1000, "mixed"), (1000, "photos")):
        run_tasks(replace(experiment, num_real=size).tasks(BY_NAME[regime], EQUAL, Cell(0, 0, 0), True), 1)
    rows = run_benchmark(label_multiplier, "--report")["rows"]
    assert [row["num_photos"] for row in rows] == [300, 1000]
    assert "mixed" not in rows[0]
    assert 1000 < rows[1]["equals"] < 5500


def test_more_entropy_correlates_with_more_right_captions(run_benchmark: Callable[..., dict[str, Any]]) -> None:
    words = ("--draws", "0", "--generators", "0", "--seeds", "0")
    saved = run_benchmark(dose_response, *words)
    assert saved["rank_correlation"] == 1.0
    assert [row["entropy"] for row in saved["rows"]] == [1, 2, 5, 10, 20]
    assert saved["point"]["steps"] == 800


def test_seeds_of_regimes() -> None:
    draws, generators, seeds = [0, 1], [0, 1], [0, 1, 2]
    counts = {name: len(list_cells(BY_NAME[name], draws, generators, seeds)) for name in ("real", "mixed", "blank")}
    assert counts == {"real": 6, "mixed": 12, "blank": 6}


@pytest.mark.slow
def test_the_second_stage_is_compared_with_the_runs_that_it_starts_from() -> None:
    def run(score: float) -> Run:
        return Run(score, score, score, None, {"1": score}, {"1": score}, 800, None)

    start = {Cell(0, 0, seed): run(score) for seed, score in enumerate((0.5, 0.3, 0.9))}
    optimized = {Cell(0, 0, 1): run(0.4)}
    figures = flickr8k_gain.compare({"real": start, "real-cider": optimized})
    assert figures["real-cider"]["gain_over_start"]["cider"][0] == pytest.approx(0.1)
    assert "gain" not in figures["real"]


@pytest.mark.parametrize("name", ["real", "mixed-minilm", "continuous", "continued", "written", "mixed-cider"])
def test_commands_parse(
    synth2: StandIn,
    experiment: Experiment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    write_captions(experiment.data / "captions_val.json", range(9000, 9010))
    monkeypatch.setattr(flickr8k_chain.Chain, "_write_control", lambda *_: None)
    run_tasks(experiment.tasks(BY_NAME[name], EQUAL, Cell(0, 0, 0), is_validated=True), 1)
    commands = [(folder, words) for folder, words in synth2.commands if words[0] in ("fit", "predict")]
    capsys.readouterr()  # what run_tasks printed
    done = {"real": 0, "written": -6}.get(name, -4)  # the commands before are the same for all regimes
    for folder, words in commands[done:]:
        monkeypatch.chdir(folder)
        with pytest.raises(SystemExit) as stop:
            main([*words, "--print_config"])
        assert stop.value.code == 0, words
        settings = yaml.safe_load(capsys.readouterr().out)
        text = json.dumps(settings)
        assert "synth2_lightning/scenes" not in text  # the data of mixed.yaml
        for word in words:  # the last of several values of an option counts
            option, _, value = word.removeprefix("--").partition("=")
            if "=" in word and option.endswith(("shards", "folder", "num_levels", "limit", "skip", "table", "weights")):
                assert json.dumps(yaml.safe_load(value)) in text, word


def test_changes_are_compared_on_held_back_photos(
    synth2: StandIn, run_benchmark: Callable[..., dict[str, Any]], experiment: Experiment
) -> None:
    (experiment.data / "captions_val.json").unlink()
    saved = run_benchmark(flickr8k_probes)
    baselines = {"real", "mixed", "blank", "written", "written-draws", "written-varied"}
    assert saved["regimes"].keys() == baselines | {one.name for one in flickr8k_plan.PROBES}
    commands = [" ".join(words).replace("experiments/flickr8k/", "") for _, words in synth2.commands]
    starts = ["predict --config score.yaml", "predict --config recaption.yaml", "predict --config reassign.yaml"]
    (first, second, third) = (next(i for i, one in enumerate(commands) if one.startswith(start)) for start in starts)
    assert second < third
    full = replace(experiment, num_real=1000)
    checkpoint = full.run_folder(BY_NAME["real"], EQUAL, Cell(0, 0, 0)) / "checkpoints" / "last.ckpt"
    assert str(checkpoint) in commands[first]
    assert str(checkpoint) in commands[second]
    for folder, before in {  # settings after the run files that they override
        "shards/synthetic-own-draws-g0-l4": "draws.yaml",
        "shards/written-draws-g0-l4": "draws.yaml",
        "captions/written-more": "num_captions=25000",
        "captions/written-varied": "sampling.temperature=1.0",
    }.items():
        (command,) = {one for one in commands if f"callbacks.folder={folder}" in one}
        assert command.index(".yaml") < command.index(before) < command.index(f"callbacks.folder={folder}")
