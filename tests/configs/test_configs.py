"""Every shipped config parses; every run file runs two steps."""

import json
from pathlib import Path

import pytest

from synth2_lightning.cli import config_folder, main, run_trainer

CONFIGS = config_folder()
TINY = Path(__file__).with_name("tiny.yaml")
FITS = ("mixed", "real", "synthetic", "tokenizer")
OVERLAYS = {  # overlay: the run file that it goes on top of
    path.relative_to(CONFIGS).as_posix(): "tokenize.yaml" if "tokenize" in path.name else "mixed.yaml"
    for path in sorted((CONFIGS / "overlays").glob("*.yaml"))
}


def test_every_run_file_is_known_to_these_tests() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {*FITS, "tokenize"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_parse(overlay: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = "predict" if "tokenize" in overlay else "fit"
    with pytest.raises(SystemExit) as stop:
        main([command, "--config", OVERLAYS[overlay], "--config", overlay, "--print_config"])
    assert stop.value.code == 0
    assert "class_path" in capsys.readouterr().out


@pytest.mark.parametrize("name", FITS)
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_fit_runs_two_steps(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["fit", "--config", f"{name}.yaml", "--config", str(TINY), "--data.init_args.num_workers=0"]
    if name in ("mixed", "synthetic"):
        words.append("--data.init_args.real.init_args.num_workers=0")
    trainer = run_trainer(words).trainer
    assert trainer.global_step == 2
    assert trainer.callback_metrics["train/loss"].isfinite()
    assert (Path(trainer.log_dir or "") / "config.yaml").is_file()
    if name != "tokenizer":
        card = json.loads((Path(trainer.log_dir or "") / "cider" / "val-step=2" / "protocol.json").read_text())
        assert card["num_pictures"] == 128


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_tokenize_writes_shards_that_fit_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_trainer(["predict", "--config", "tokenize.yaml", "--config", str(TINY), "--data.init_args.num_workers=0"])
    manifest = json.loads((tmp_path / "shards" / "scenes" / "manifest.json").read_text())
    assert manifest["num_records"] == 256
    words = ["--data.init_args.synthetic.init_args.shards=shards/scenes", "--data.init_args.num_workers=0"]
    trainer = run_trainer(["fit", "--config", "synthetic.yaml", "--config", str(TINY), *words]).trainer
    assert trainer.global_step == 2
