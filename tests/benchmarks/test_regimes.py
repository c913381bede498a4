import json
from pathlib import Path

import pytest

from regimes import Run, paired_interval, read, spread, write_text_controls
from synth2_lightning.shards.reader import ShardReader


def write_run(folder: Path, captions: dict[int, dict[str, str]], losses: dict[int, float]) -> None:
    place = folder / "mixed" / "seed-0"
    for step, texts in captions.items():
        (place / "cider" / f"val-step={step}").mkdir(parents=True)
        rows = [
            {"key": key, "caption": text, "references": [f"a {key} dog runs", f"one {key} dog"]}
            for key, text in texts.items()
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (place / "cider" / f"val-step={step}" / "predictions.jsonl").write_text(lines)
    rows_of_losses = "".join(f"{step},{loss}\n" for step, loss in losses.items())
    (place / "metrics.csv").write_text(f"step,val/loss\n5,\n{rows_of_losses}")


def test_the_last_step_counts_and_images_can_be_chosen(tmp_path: Path) -> None:
    keys = ("red", "blue", "black")
    right = {key: f"a {key} dog runs" for key in keys}
    write_run(tmp_path, {100: dict.fromkeys(keys, "a cat"), 20: right}, {20: 2.0, 100: 3.0})

    run = read("mixed", 0, tmp_path)
    assert (run.cider, run.loss) == (0, 3.0)
    assert list(run.curve) == [20, 100]
    assert run.curve[20] > 1
    assert set(read("mixed", 0, tmp_path, lambda key: key != "red").scores) == {"blue", "black"}


def test_an_interval_spans_what_images_differ_in() -> None:
    one = [Run(0, 0, {str(i): 1.0 + i % 2 for i in range(100)}, {})]
    other = [Run(0, 0, {str(i): 1.0 for i in range(100)}, {}), Run(0, 0, {str(i): 0.5 for i in range(100)}, {})]

    mean, low, high = paired_interval(one, other)
    assert mean == pytest.approx(0.75)
    # Half of the images differ by 0.25, half by 1.25: the mean of 100 has a standard error of 0.05.
    assert (low, high) == pytest.approx((0.75 - 1.96 * 0.05, 0.75 + 1.96 * 0.05), abs=0.01)
    assert paired_interval(one, one) == (0, 0, 0)


def test_spread_of_one_run_is_unknown() -> None:
    assert spread([1.0, 3.0]) == pytest.approx((2.0, 2**0.5))
    assert str(spread([1.0])[1]) == "nan"


def test_controls_keep_captions_and_scores_and_change_the_tokens(tmp_path: Path) -> None:
    def load(folder: str | Path) -> ShardReader:
        reader = ShardReader(str(folder))
        reader.load()
        return reader

    generated = load("package://synth2_lightning/scenes/shards")
    write_text_controls(tmp_path, generated)
    rows = range(0, len(generated), 10)
    pairs = generated.read_all_columns(rows)
    for name in ("blank", "shuffled"):
        control = load(tmp_path / name)
        assert len(control) == len(generated)
        others = control.read_all_columns(rows)
        assert (others.keys, others.captions, others.scores) == (pairs.keys, pairs.captions, pairs.scores)
    assert not load(tmp_path / "blank").read(rows).tokens.ids.any()
    shuffled = load(tmp_path / "shuffled").read(range(len(generated))).tokens.ids
    drawn = generated.read(range(len(generated))).tokens.ids
    assert (shuffled == drawn).all(dim=(1, 2)).float().mean() < 0.01
    assert sorted(map(tuple, shuffled.flatten(1).tolist())) == sorted(map(tuple, drawn.flatten(1).tolist()))
