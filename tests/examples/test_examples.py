"""The examples run with fewer steps and smaller networks."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from safetensors.torch import load_file

from synth2_lightning import (
    Captioner,
    NewLanguageModel,
    PerceiverResampler,
    PrefixDecoder,
    RealDataModule,
    ScenesSource,
    VQGANTokenizer,
    load,
)
from synth2_lightning.cli import main
from synth2_lightning.types import CaptionRecord

EXAMPLES = Path(__file__).parents[2] / "examples"
LATER = """
import json
from pathlib import Path
from synth2_lightning import Captioner, VisionLanguageModule, load
from synth2_lightning.export.exported import export_captioner

run = "lightning_logs/version_0"
module = VisionLanguageModule.load_from_checkpoint(Path(run, "checkpoints", "last.ckpt"))
captioners = {"run": load(run, "cpu"), "checkpoint": Captioner(module, "cpu"), "saved": load("my-captioner", "cpu")}
export_captioner(run, "exported")
print(json.dumps({name: captioner.caption(["a.png"]) for name, captioner in captioners.items()}))
"""


def shrink(name: str, folder: Path, replacements: Mapping[str, str]) -> Path:
    """Write an example with replaced literals to a folder."""
    text = (EXAMPLES / name).read_text("utf-8")
    for literal, replacement in replacements.items():
        assert text.count(literal) == 1, f"{name} lacks {literal}"
        text = text.replace(literal, replacement)
    (folder / name).write_text(text, "utf-8")
    return folder / name


def run(*words: str, folder: Path) -> str:
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_a_script_trains_and_other_processes_load_caption_and_export(tmp_path: Path) -> None:
    source = EXAMPLES / "train_in_python.py"
    lines = source.read_text("utf-8").splitlines()
    assert len(lines) <= 25
    assert sum(line.startswith(("import", "from")) for line in lines) <= 4
    script = shrink(
        source.name,
        tmp_path,
        {
            "num_latents=16, depth=2, num_heads=4": "num_latents=4, depth=1, num_heads=2",
            '"n_embd": 192, "n_layer": 3': '"n_embd": 32, "n_layer": 1',
            "num_images=8192": "num_images=64",
            "num_images=512": "num_images=8",
            "batch_size=64": "batch_size=8, num_workers=0",
            "synthetic, 64, ": "synthetic, 8, num_workers=0, synthetic_fraction=",
            "max_steps=320": "max_steps=60, accelerator='cpu'",
        },
    )
    run(str(script), folder=tmp_path)
    ScenesSource("val", num_images=1).image(0).save(tmp_path / "a.png")
    captions = json.loads(run("-c", LATER, folder=tmp_path))
    assert captions["run"] == captions["checkpoint"] == captions["saved"]
    assert re.search(r"\w+ \w+", *captions["run"])
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("exported", "my-captioner")]
    for config in configs:
        config.pop("weights_sha256")  # of the file, in which the order of the metadata is random
    assert configs[0] == configs[1]
    assert configs[0]["step"] == 60
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("exported", "my-captioner")]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    card = (tmp_path / "my-captioner" / "README.md").read_text()
    assert "| real.train | ScenesSource | split=train, num_images=64, seed=0, name=scenes |" in card


def test_a_head_and_a_data_set_of_another_package_are_trained_saved_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    head, source = import_module("own_head"), import_module("own_source")
    encoder = VQGANTokenizer("package://synth2_lightning/scenes/tokenizer")
    language_model = NewLanguageModel(
        {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2}, "package://synth2_lightning/scenes/vocabulary"
    )
    resampler = PerceiverResampler(num_latents=2, depth=1, num_heads=2, head_dim=8)
    module = head.FocalHead(encoder, resampler, PrefixDecoder(language_model), gamma=2.0)
    flags = source.FlagSource()
    assert flags.image(0).getpixel((0, 0)) != flags.image(0).getpixel((63, 0))
    data = RealDataModule(flags, flags, batch_size=16, num_workers=0, image_encoder=encoder)
    trainer = Trainer(
        max_steps=1, accelerator="cpu", logger=False, default_root_dir=tmp_path, limit_val_batches=0,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=r"own_head.*trust"):
        load(checkpoint)
    Captioner(module).save_pretrained(tmp_path / "saved")
    for place in (checkpoint, tmp_path / "saved"):
        loaded = load(place, "cpu", trust=["own_head"])
        assert type(loaded.module) is head.FocalHead
        assert loaded.module.gamma == 2.0
        assert loaded.caption([flags.image(0)]) == Captioner(module, "cpu").caption([flags.image(0)])


def test_a_run_file_names_a_head_a_resampler_and_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    content = {
        "model": {
            "class_path": "own_head.FocalHead",
            "init_args": {"gamma": 2.0, "resampler": {"class_path": "own_resampler.PoolingResampler"}},
        },
        "data": {"init_args": {"train": {"class_path": "own_source.FlagSource", "init_args": {"size": 32}}}},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    words = ["fit", "--config", "real.yaml", "--config", str(tmp_path / "own.yaml"), "--print_config"]
    with pytest.raises(SystemExit) as stop:
        main([*words, *(word for name in ("head", "source", "resampler") for word in ("--trust", f"own_{name}"))])
    assert stop.value.code == 0
    parsed = yaml.safe_load(capsys.readouterr().out)
    assert parsed["model"]["init_args"]["gamma"] == 2.0
    assert parsed["model"]["init_args"]["resampler"]["init_args"] == {"num_latents": 8}
    assert parsed["data"]["init_args"]["train"]["init_args"] == {"size": 32}


def test_a_resampler_has_the_number_and_width_of_visual_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    resampler = import_module("own_resampler").PoolingResampler(num_latents=3).build(input_dim=4, output_dim=6)
    embeddings = torch.arange(6.0).repeat(2, 4, 1).transpose(1, 2)  # 6 tokens of width 4
    expected = resampler.project(torch.tensor([0.5, 2.5, 4.5])[:, None].expand(3, 4)).expand(2, 3, 6)
    torch.testing.assert_close(resampler(embeddings), expected)


def test_a_filter_judges_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    judge = import_module("own_filter").DigitFilter(max_digits=2).judge_one
    assert judge(CaptionRecord("1", "a bus on line 12")).reason == ""
    assert judge(CaptionRecord("2", "a bus of 1994")).reason == "more than 2 digits"
