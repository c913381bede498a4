"""The examples of the documents run, README stays short, and relative links lead to existing files."""

import ast
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from synth2_lightning import MixedDataModule, VisionLanguageModule
from synth2_lightning.cli import main
from synth2_lightning.metrics.cider_reward import CiderReward
from synth2_lightning.modules.self_critical import SelfCriticalModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, check_image_encoder

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = sorted(
    path for folder in ("*", "docs/*", "benchmarks/*", "configs/**/*", "src/**/*") for path in ROOT.glob(f"{folder}.md")
)
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
EXECUTED = {
    "README.md": 1,
    "docs/extending.md": 3,
    "docs/generator.md": 1,
    "docs/sharing.md": 2,  # the second one in tests/export/test_pretrained.py
    "docs/your_own_images.md": 2,
}
"""Numbers of the Python examples that tests execute, those below unless another file is named."""


def code_blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text)}


def test_readme_has_at_most_120_lines_and_its_example_at_most_12() -> None:
    (example,) = code_blocks(README, "python")
    assert len(README.read_text("utf-8").splitlines()) <= 120
    assert len([line for line in example.splitlines() if line.strip()]) <= 12


def test_readme_keeps_the_two_commands() -> None:
    commands = "\n".join(code_blocks(README, "bash")).splitlines()
    assert "pip install -e . && synth2 fit --config configs/mixed.yaml" in commands
    assert 'pip install -e ".[test]" && pytest' in commands


def test_every_python_example_is_executed() -> None:
    found = {document.relative_to(ROOT).as_posix(): len(code_blocks(document, "python")) for document in DOCUMENTS}
    assert {document: number for document, number in found.items() if number} == EXECUTED


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
def test_the_example_trains_on_a_coco_file_and_scores_its_captions(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    save_model: Callable[[str, str | None], str],
    write_coco: Callable[[Path, str, range], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "data").mkdir()
    write_coco(tmp_path / "data", "captions_train.json", range(4))
    write_coco(tmp_path / "data", "captions_val.json", range(4, 6))
    weights = tmp_path / "efficientnet-lite0.safetensors"
    save_file(timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict(), weights)
    (example,) = code_blocks(README, "python")
    for literal, replacement in {
        '"weights://efficientnet-lite0/efficientnet-lite0-57934424.pth"': repr(str(weights)),
        '"weights://smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf"': repr(save_model("llama", None)),
        "batch_size=32": "batch_size=4",
        "max_epochs=5": "max_epochs=1",
    }.items():
        assert example.count(literal) == 1, f"README's example lacks {literal}"
        example = example.replace(literal, replacement)
    monkeypatch.chdir(tmp_path)

    names: dict[str, Any] = {}
    exec(compile(example, str(README), "exec"), names)

    model = names["model"]
    assert isinstance(model, VisionLanguageModule)
    metrics = model.trainer.callback_metrics
    assert {"train/loss", "val/loss", "val/cider"} <= metrics.keys()
    assert all(value.isfinite() for value in metrics.values())
    (predictions,) = tmp_path.glob("lightning_logs/version_0/cider/val-step=*/predictions.jsonl")
    assert [json.loads(line)["key"] for line in predictions.read_text("utf-8").splitlines()] == ["4", "5"]

    # The examples of other documents use the names and files of this one.
    for image in ("a.jpg", "b.png"):
        shutil.copy(tmp_path / "data" / "images" / "0.jpg", tmp_path / image)
    own_images = "".join(code_blocks(ROOT / "docs" / "your_own_images.md", "python"))
    exec(own_images.replace("NAME.ckpt", "last.ckpt"), names)
    assert capsys.readouterr().out.rstrip().endswith("]")
    loaded = names["model"]
    assert loaded is not model
    for name, weights in model.resampler.state_dict().items():
        assert torch.equal(weights, loaded.resampler.state_dict()[name])
    (mixing,) = code_blocks(ROOT / "docs" / "generator.md", "python")
    exec(mixing, names)
    assert isinstance(names["data"], MixedDataModule)


def test_the_example_of_the_document_on_sharing_captions_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    parts = {"image_encoder": "TinyImageTokenizer", "resampler": "TinyResampler", "decoder": "TinyDecoder"}
    settings: dict[str, object] = {n: {"class_path": f"synth2_lightning.testing.{part}"} for n, part in parts.items()}
    settings["_instantiator"] = "lightning.pytorch.cli.instantiate_module"
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": settings, "pytorch-lightning_version": "2.6.6"}
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, tmp_path / "run" / "checkpoints" / "last.ckpt")
    for image in ("a.jpg", "b.png"):
        Image.new("RGB", (16, 12), "red").save(tmp_path / image)
    example = code_blocks(ROOT / "docs" / "sharing.md", "python")[0]
    exec(example.replace("my-captioner", "run"), {})
    assert len(ast.literal_eval(capsys.readouterr().out.splitlines()[-1])) == 2


def test_the_encoder_of_the_document_on_extending_keeps_the_contract() -> None:
    encoder, test = code_blocks(ROOT / "docs" / "extending.md", "python")[:2]
    names: dict[str, Any] = {"check_image_encoder": check_image_encoder}
    exec(encoder + test, names)
    names["test_the_encoder_keeps_the_contract"]()


def test_the_reward_of_the_document_on_extending_prefers_shorter_captions() -> None:
    names: dict[str, Any] = {}
    exec(code_blocks(ROOT / "docs" / "extending.md", "python")[2], names)
    module = names["ShortCaptionModule"](TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    module.reward = CiderReward([("a dog runs",), ("a cat",), ("two birds",)])
    rewards = module.score(["a dog runs", "a dog"], [True, True], [("a dog runs",)] * 2)
    plain = SelfCriticalModule.score(module, ["a dog runs", "a dog"], [True, True], [("a dog runs",)] * 2)
    assert (plain - rewards).tolist() == pytest.approx([0.3, 0.2], abs=1e-6)


def test_the_overlay_of_the_document_on_own_images_parses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = code_blocks(ROOT / "docs" / "your_own_images.md", "yaml")
    (tmp_path / "my_photos.yaml").write_text(block, "utf-8")
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "photos.yaml", "--config", str(tmp_path / "my_photos.yaml"), "--print_config"])
    assert stop.value.code == 0
    parsed = yaml.safe_load(capsys.readouterr().out)
    language_model = parsed["model"]["init_args"]["decoder"]["init_args"]["language_model"]["init_args"]
    assert (language_model["model"], language_model["gguf_file"]) == ("HuggingFaceTB/SmolLM2-360M", None)
    assert parsed["data"]["init_args"]["train"]["init_args"]["annotations"] == "/disk/train.json"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files_and_headings(document: Path) -> None:
    broken = []
    for path, anchor in LINK.findall(document.read_text("utf-8")):
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(f"{path}#{anchor}" if anchor else path)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_run_files_that_commands_name_exist(document: Path) -> None:
    commands = "\n".join(code_blocks(document, "bash"))
    for folder in re.findall(r"synth2 init .*--out (\S+) --synthetic", commands):
        commands = commands.replace(f"--config {folder}/", "--config experiments/flickr8k/")
    written = re.findall(r"cat > (\S+)", commands)
    written += [f"{folder}/photos.yaml" for folder in re.findall(r"synth2 init .*--out (\S+)", commands)]
    written += [block.splitlines()[0].removeprefix("# ") for block in code_blocks(document, "yaml")]
    names = set(re.findall(r"--config[ =](\S+\.yaml)", commands)) - set(written)
    named = {name for name in names if not name.startswith(("RUN/", "runs/"))}
    assert sorted(name for name in named if not (ROOT / "configs" / name.removeprefix("configs/")).exists()) == []
