import json
from pathlib import Path

import pytest

import regimes
from controls import load_shards, write_blank, write_shuffled
from intervals import Cell
from regimes import END, Fit, list_runs, read, scores_of, summarize


def write_run(place: Path, captions: dict[int, dict[str, str]], losses: dict[int, float]) -> None:
    for step, texts in captions.items():
        (place / "cider" / f"val-step={step}").mkdir(parents=True)
        rows = [
            {"key": key, "caption": text, "references": [f"a {key} dog runs fast", f"one {key} dog"]}
            for key, text in texts.items()
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (place / "cider" / f"val-step={step}" / "predictions.jsonl").write_text(lines)
    rows_of_losses = "".join(f"{step},{loss}\n" for step, loss in losses.items())
    (place / "metrics.csv").write_text(f"step,val/loss\n5,\n{rows_of_losses}")


def test_the_last_step_counts_and_images_can_be_chosen(tmp_path: Path) -> None:
    keys = ("red", "blue", "black")
    right = {key: f"a {key} dog runs fast" for key in keys}
    write_run(tmp_path, {20: dict.fromkeys(keys, "a cat"), 100: right}, {20: 2.0, 100: 3.0})

    run = read(tmp_path)
    assert (run.num_steps, run.loss) == (100, 3.0)
    assert run.cider > 1
    assert run.bleu_4 == pytest.approx(1)
    assert run.rouge_l == pytest.approx(1)
    assert set(read(tmp_path, lambda key: key != "red").scores) == {"blue", "black"}


def test_figures_are_means_over_runs_and_scores_are_in_the_order_of_keys(tmp_path: Path) -> None:
    for seed, caption in enumerate(("a red dog", "a cat")):
        write_run(tmp_path / str(seed), {10: {"red": caption, "blue": "a blue dog"}}, {10: float(seed)})
    runs = {Cell(0, 0, seed): read(tmp_path / str(seed)) for seed in (0, 1)}
    figures = summarize(runs)
    assert (figures["num_runs"], figures["loss"], figures["loss_sd"]) == (2, 0.5, 0.7071)
    assert summarize({Cell(0, 0, 0): runs[Cell(0, 0, 0)]})["cider_sd"] is None
    scores = scores_of(runs)[Cell(0, 0, 1)]
    assert scores[0] > scores[1] == 0  # blue, red
    (first, second) = list_runs({"mixed": runs})
    assert (first["regime"], second["seed"], second["num_steps"]) == ("mixed", 1, 10)


def test_a_run_resumes_from_its_last_checkpoint_and_keeps_its_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    folder = tmp_path / "real" / "seed-3"

    def run(words: list[str], *_: object) -> None:
        commands.append(words)
        step = 100 * len(commands)
        assert not (folder / "metrics.csv").exists()  # the logger would delete it
        (folder / "metrics.csv").write_text(f"step,val/loss\n{step},{step / 100}\n")
        (folder / "checkpoints").mkdir(exist_ok=True)
        for name in ("best", f"step={step}"):
            (folder / "checkpoints" / f"{name}.ckpt").touch()
        (folder / "checkpoints" / "last.ckpt").unlink(missing_ok=True)
        (folder / "checkpoints" / "last.ckpt").symlink_to(f"step={step}.ckpt")
        if len(commands) == 1:
            raise RuntimeError("stopped")

    monkeypatch.setattr(regimes, "run_command", run)
    settings = {"trainer": {"max_steps": 200}}
    fit = Fit(folder, "real.yaml", ["--trainer.max_epochs=1"], 3, 1, settings)
    task = fit.task("real", 1.0)
    with pytest.raises(RuntimeError, match="stopped"):
        task.run()
    assert not task.is_done
    task.run()
    assert commands[0] == commands[1]
    assert commands[0][-5:-1] == ["--ckpt_path", "last", "--seed_everything", "3"]
    written = json.loads((folder / "settings.yaml").read_text())["trainer"]
    assert written["max_steps"] == 200
    assert written["logger"]["init_args"] == {"save_dir": str(tmp_path), "name": "real", "version": "seed-3"}
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["last.ckpt", "step=200.ckpt"]
    assert regimes._read_loss(folder) == 2.0
    assert task.mark == folder / END


def test_controls_keep_captions_and_scores_and_change_the_tokens(tmp_path: Path) -> None:
    generated = load_shards("package://synth2_lightning/scenes/shards", limit=1000)
    write_blank(tmp_path / "blank", generated)
    write_shuffled(tmp_path / "shuffled", generated)
    rows = range(0, len(generated), 10)
    pairs = generated.read_all_columns(rows)
    for name in ("blank", "shuffled"):
        control = load_shards(tmp_path / name)
        assert len(control) == len(generated)
        others = control.read_all_columns(rows)
        assert (others.keys, others.captions, others.scores) == (pairs.keys, pairs.captions, pairs.scores)
    assert not load_shards(tmp_path / "blank").read(rows).tokens.ids.any()
    shuffled = load_shards(tmp_path / "shuffled").read(range(len(generated))).tokens.ids
    drawn = generated.read(range(len(generated))).tokens.ids
    assert (shuffled == drawn).all(dim=(1, 2)).float().mean() < 0.01
    assert sorted(map(tuple, shuffled.flatten(1).tolist())) == sorted(map(tuple, drawn.flatten(1).tolist()))
