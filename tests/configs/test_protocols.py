"""Every protocol parses with run files of both kinds, and scores are computed with its settings."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from synth2_lightning.cli import main
from synth2_lightning.cli.run_files import run_file_folder
from synth2_lightning.cli.trainer import run_trainer

PROTOCOLS = sorted(
    path.relative_to(run_file_folder()).as_posix() for path in run_file_folder().glob("protocols/*.yaml")
)


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
    assert data["max_bad_images"] == 0
    assert data["test"]["init_args"]["limit"] is None
    assert data["test"]["init_args"]["name"] in protocol  # not the name in the run's own settings
    assert settings["model"]["init_args"]["generation"]["num_beams"] == 3
    assert settings["model"]["init_args"]["resampler"]["class_path"].endswith("NeighborhoodResampler")
    assert len(settings["trainer"]["callbacks"]) == 2


def _draw(*files: str) -> None:
    for number, file in enumerate(files):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (90, 70), (40 * number, 9, 9)).save(file)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a captioner that was trained for one step."""
    folder = tmp_path_factory.mktemp("run")
    tiny = Path(__file__).with_name("tiny.yaml")
    words = ["fit", "--config", "real.yaml", "--config", str(tiny), "--trainer.max_steps=1"]
    words += ["--trainer.limit_val_batches=0", "--data.init_args.num_workers=0"]
    words += ["--data.init_args.train.init_args.num_images=16"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder / (run_trainer(words).trainer.log_dir or "")


def _test(run: Path, protocol: str, metric: str) -> dict[str, Any]:
    """Return the protocol card of a test with that protocol."""
    words = ["test", "--config", str(run / "config.yaml"), "--config", f"protocols/{protocol}.yaml"]
    words += ["--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--data.init_args.num_workers=0"]
    log_dir = Path(run_trainer(words).trainer.log_dir or "")
    card: dict[str, Any] = json.loads(next(log_dir.glob(f"{metric}/test-*/protocol.json")).read_text())
    assert card["generation"]["num_beams"] == 3  # not the value in the checkpoint
    return card


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_nocaps_is_scored_by_domain(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    domains = ["in-domain", "out-domain"] * 3
    images = [{"id": i, "file_name": f"{i}.png", "domain": domain} for i, domain in enumerate(domains)]
    captions = [{"image_id": i, "caption": f"a red circle {i} {n}"} for i in range(6) for n in range(10)]
    _write_json(Path("data/nocaps/nocaps_val_4500_captions.json"), {"images": images, "annotations": captions})
    _draw(*(f"data/nocaps/images/{i}.png" for i in range(6)))
    card = _test(run, "nocaps", "cider")
    assert {group: figures["num_images"] for group, figures in card["by_group"].items()} == {
        "in-domain": 3,
        "out-domain": 3,
    }
    assert (card["sources"], card["num_references"]) == (["nocaps"], 60)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["coco", "flickr30k", "flickr8k"])
def test_karpathys_test_splits_are_scored(
    name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = {"filepath": "val2014"} if name == "coco" else {}
    images = [
        {
            "filename": f"{i}.jpg", "split": split, "imgid": i, "sentids": list(range(5 * i, 5 * i + 5)), **where,
            "sentences": [{"raw": f"a red circle {n}", "sentid": 5 * i + n, "imgid": i} for n in range(5)],
        }
        for i, split in enumerate(("train", "val", "test", "test"))
    ]  # fmt: skip
    _write_json(Path(f"data/{name}/dataset_{name}.json"), {"dataset": name, "images": images})
    _draw(*(f"data/{name}/{'val2014' if name == 'coco' else 'images'}/{i}.jpg" for i in range(4)))
    card = _test(run, f"{name}_karpathy_test", "cider")
    assert (card["sources"], card["num_images"], card["num_references"]) == ([name], 2, 10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_vizwiz_is_scored_without_what_was_rejected(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    captions = [
        {"image_id": i, "caption": f"a red circle {n}", "is_rejected": n == 4, "is_precanned": False}
        for i in range(3)
        for n in range(5)
    ]
    images = [{"id": i, "file_name": f"VizWiz_val_{i:08d}.jpg"} for i in range(3)]
    _write_json(Path("data/vizwiz/annotations/val.json"), {"images": images, "annotations": captions})
    _draw(*(f"data/vizwiz/val/VizWiz_val_{i:08d}.jpg" for i in range(3)))
    card = _test(run, "vizwiz_captions", "cider")
    assert (card["sources"], card["num_images"], card["num_references"]) == (["vizwiz"], 3, 12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "prefix", "middle"), [("okvqa", "", "mscoco_val2014"), ("vqav2", "v2_", "v2_mscoco_val2014")]
)
def test_questions_are_put_to_the_captioner_and_scored(
    name: str, prefix: str, middle: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    questions = [{"question_id": i, "image_id": i % 2, "question": "is it red?"} for i in range(4)]
    answers = [{"question_id": i, "answers": [{"answer": "yes"}] * 10} for i in range(4)]
    _write_json(Path(f"data/{name}/{prefix}OpenEnded_mscoco_val2014_questions.json"), {"questions": questions})
    _write_json(Path(f"data/{name}/{middle}_annotations.json"), {"annotations": answers})
    _draw(*(f"data/coco/val2014/COCO_val2014_{i:012d}.jpg" for i in range(2)))
    card = _test(run, name, "vqa_accuracy")
    assert (card["metric"], card["num_images"], card["num_references"]) == ("VQA accuracy", 4, 40)
    assert card["prompt"] == "question: {question} answer:"
