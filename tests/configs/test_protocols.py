"""Every protocol parses on top of runs of both kinds, and what it says is what is measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from synth2_lightning.cli import config_folder, main, run_trainer

PROTOCOLS = sorted(path.relative_to(config_folder()).as_posix() for path in config_folder().glob("protocols/*.yaml"))


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("base", ["mixed.yaml", "real.yaml"])
def test_protocols_parse(protocol: str, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["test", "--config", base, "--config", protocol, "--print_config"])
    assert stop.value.code == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    data = settings["data"]["init_args"]
    assert settings["data"]["class_path"].endswith("RealDataModule")
    assert data["image_size"] is None
    assert data["max_bad_pictures"] == 0
    assert data["test"]["init_args"]["limit"] is None
    assert data["test"]["init_args"]["name"] in protocol  # not what the run's own source was called
    assert settings["model"]["init_args"]["generation"]["num_beams"] == 3
    assert settings["model"]["init_args"]["resampler"]["class_path"].endswith("NeighbourhoodResampler")
    assert len(settings["trainer"]["callbacks"]) == 2


def _train() -> tuple[Path, Path]:
    """Train for no step to speak of; give the run file and the checkpoint."""
    tiny = Path(__file__).with_name("tiny.yaml")
    words = ["fit", "--config", "real.yaml", "--config", str(tiny), "--trainer.max_steps=1"]
    words += ["--trainer.limit_val_batches=0", "--data.init_args.num_workers=0"]
    run = Path(run_trainer(words).trainer.log_dir or "")
    return run / "config.yaml", run / "checkpoints" / "last.ckpt"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_is_measured_as_the_protocol_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    domains = ["in-domain", "out-domain"] * 3
    images = [{"id": i, "file_name": f"{i}.png", "domain": domain} for i, domain in enumerate(domains)]
    captions = [{"image_id": i, "caption": f"a red circle {i} {n}"} for i in range(6) for n in range(10)]
    _write_json(Path("data/nocaps/nocaps_val_4500_captions.json"), {"images": images, "annotations": captions})
    Path("data/nocaps/images").mkdir()
    for i in range(6):
        Image.new("RGB", (90, 70), (40 * i, 9, 9)).save(f"data/nocaps/images/{i}.png")
    config, checkpoint = _train()
    words = ["test", "--config", str(config), "--config", "protocols/nocaps.yaml", "--ckpt_path", str(checkpoint)]
    trainer = run_trainer([*words, "--data.init_args.num_workers=0"]).trainer
    card = json.loads(next(Path(trainer.log_dir or "").glob("cider/test-*/protocol.json")).read_text())
    assert card["generation"]["num_beams"] == 3  # not what the checkpoint was trained with
    assert {group: figures["num_pictures"] for group, figures in card["by_group"].items()} == {
        "in-domain": 3,
        "out-domain": 3,
    }
    assert (card["sources"], card["num_references"]) == (["nocaps"], 60)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_questions_are_put_to_the_captioner_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    questions = [{"question_id": i, "image_id": i % 2, "question": "is it red?"} for i in range(4)]
    answers = [{"question_id": i, "answers": [{"answer": "yes"}] * 10} for i in range(4)]
    _write_json(Path("data/okvqa/OpenEnded_mscoco_val2014_questions.json"), {"questions": questions})
    _write_json(Path("data/okvqa/mscoco_val2014_annotations.json"), {"annotations": answers})
    Path("data/coco/val2014").mkdir(parents=True)
    for i in range(2):
        Image.new("RGB", (90, 70)).save(f"data/coco/val2014/COCO_val2014_{i:012d}.jpg")
    config, checkpoint = _train()
    words = ["test", "--config", str(config), "--config", "protocols/okvqa.yaml", "--ckpt_path", str(checkpoint)]
    trainer = run_trainer([*words, "--data.init_args.num_workers=0"]).trainer
    card = json.loads(next(Path(trainer.log_dir or "").glob("vqa_accuracy/test-*/protocol.json")).read_text())
    assert (card["metric"], card["num_pictures"], card["num_references"]) == ("VQA accuracy", 4, 40)
    assert card["prompt"] == "question: {question} answer:"
