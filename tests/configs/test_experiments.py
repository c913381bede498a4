"""Experiments at the paper's size: the commands of their READMEs parse, and run on tiny networks of the same layout."""

import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import yaml
from diffusers import VQModel
from lightning.pytorch import Trainer
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModelForTextEncoding

from synth2_lightning.cli import main
from synth2_lightning.cli.run_files import run_file_folder
from synth2_lightning.cli.trainer import run_trainer
from synth2_lightning.io.huggingface import NewNetwork
from synth2_lightning.nn.maskgit import MaskGit

EXPERIMENTS = run_file_folder() / "experiments"
TINY = str(Path(__file__).with_name("tiny.yaml"))
VOCABULARY = "package://synth2_lightning/scenes/vocabulary"
CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 48, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
}
T5 = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}


def read_commands(name: str) -> list[list[str]]:
    """Return the trainer commands of a README, as lists of words without ``synth2``."""
    text = (EXPERIMENTS / name / "README.md").read_text("utf-8").replace("\\\n", " ")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line[:2] in (["synth2", "fit"], ["synth2", "predict"])]


COMMANDS = [(name, words) for name in ("paper", "coco") for words in read_commands(name)]


def test_the_readmes_name_every_run_file() -> None:
    for name in ("paper", "coco"):
        named = {word for words in read_commands(name) for word in words}
        files = {path.relative_to(EXPERIMENTS.parent).as_posix() for path in (EXPERIMENTS / name).glob("*.yaml")}
        assert len(files) >= 6
        assert files <= named


@pytest.mark.parametrize("words", [words for _, words in COMMANDS], ids=lambda words: words[-1])
def test_commands_parse(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--print_config"])
    assert stop.value.code == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert not (names := [name for name in find_names(settings) if "scenes" in name]), names


def find_names(value: object) -> Iterator[str]:
    """Yield all texts in settings."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for member in value:
            yield from find_names(member)


PAPER, COCO = ("experiments/paper/generator.yaml",), ("experiments/coco/generator.yaml",)
VQGAN_SIZES, CLIP_SIZES = (64, 8192, 1, (16, 16)), (768, 1024, 4, (7, 7))  # width, codes, levels, grid


@pytest.mark.parametrize(
    ("files", "sizes", "text_dim"),
    [
        (PAPER, VQGAN_SIZES, 1024),
        ((*PAPER, "overlays/model/muse_411m.yaml"), VQGAN_SIZES, 1024),
        ((*PAPER, "overlays/model/muse_40m.yaml"), VQGAN_SIZES, 768),
        (COCO, CLIP_SIZES, 768),
    ],
)
def test_generators_have_the_stated_number_of_parameters(
    files: tuple[str, ...], sizes: tuple[int, int, int, tuple[int, int]], text_dim: int
) -> None:
    arguments: dict[str, Any] = {}
    for file in files:
        text = (EXPERIMENTS.parent / file).read_text("utf-8")
        arguments |= yaml.safe_load(text)["model"]["init_args"]["network"]["init_args"]
    with torch.device("meta"):
        network = MaskGit(*sizes, text_dim, **arguments)
    millions = sum(weight.numel() for weight in network.parameters()) / 1e6
    stated = re.search(r"^# Muse generator of ([\d.]+) million parameters", text)
    assert stated is not None
    assert stated[1] == f"{millions:.1f}"
    if name := re.search(r"_(\d+)m\.yaml", files[-1]):
        assert name[1] == f"{millions:.0f}"


def noise(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_model: Callable[[str, str | None], str]) -> Path:
    """Return a folder with photos, and with tiny networks of random weights under the names of those on the Hub."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "HuggingFaceTB").mkdir()
    Path(save_model("llama", None)).rename("HuggingFaceTB/SmolLM2-360M")
    torch.manual_seed(0)
    VQModel(
        block_out_channels=(8,) * 5, layers_per_block=1, norm_num_groups=4, latent_channels=64, vq_embed_dim=64,
        num_vq_embeddings=64, down_block_types=("DownEncoderBlock2D",) * 5, up_block_types=("UpDecoderBlock2D",) * 5,
        mid_block_add_attention=False,
    ).save_pretrained("amused/amused-256/vqvae")  # fmt: skip
    plan = NewNetwork(T5, VOCABULARY, "test_experiments")
    for name in ("t5-large", "t5-base"):
        AutoModelForTextEncoding.from_config(plan.config).save_pretrained(f"google-t5/{name}")
        plan.tokenizer.save_pretrained(f"google-t5/{name}")
    Path("data/cc12m").mkdir(parents=True)
    with tarfile.open("data/cc12m/00000.tar", "w") as tar:
        for number in range(8):
            for suffix, content in (("jpg", noise(number)), ("txt", b"a small red circle")):
                member = tarfile.TarInfo(f"{number:08}.{suffix}")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))
    Path("data/coco/val2014").mkdir(parents=True)
    images = []
    for number, split in enumerate([*["train"] * 6, *["restval"] * 2, *["val"] * 2, *["test"] * 2]):
        Path(f"data/coco/val2014/{number}.jpg").write_bytes(noise(number))
        sentences = [{"raw": "a small red circle"}, {"raw": "a large blue square"}]
        image = {"filepath": "val2014", "filename": f"{number}.jpg", "cocoid": number, "split": split}
        images.append(image | {"sentences": sentences})
    Path("data/coco/dataset_coco.json").write_text(json.dumps({"images": images}))
    return tmp_path


NO_WORKERS: dict[str, Any] = {"data.init_args.num_workers": 0}
SMALL_GENERATOR: dict[str, Any] = {
    "model.init_args.network.init_args": {"width": 32, "depth": 1, "num_heads": 2},
    "model.init_args.sampling": {"num_steps": 2},
    "data.init_args.batch_size": 4,
    "trainer.precision": "32-true",  # processors that emulate bfloat16 take minutes
}
SMALL_CAPTIONER: dict[str, Any] = {
    "model.init_args.resampler.init_args": {"num_latents": 4, "depth": 1, "num_heads": 2, "head_dim": 8, "width": 16},
    "model.init_args.decoder.init_args": {"cross_attn_every_n_layers": 1, "num_heads": 2, "head_dim": 8},
    "model.init_args.generation": {"max_new_tokens": 4},
    "data.init_args.batch_size": 4,
    "trainer.precision": "32-true",
}
SMALL: dict[str, dict[str, Any]] = {
    "tokenize": {"data.init_args.val_batch_size": 4},
    "generator": SMALL_GENERATOR,
    "captions": {
        "model.init_args.generator": "synth2_lightning.testing.TinyCaptionGenerator",
        "data.init_args": {"num_captions": 8, "batch_size": 8},
        # The tiny generator's answers to it pass the filters.
        "data.init_args.prompt": str(EXPERIMENTS.parent / "prompts" / "small_model.yaml"),
    },
    "synthesize": {
        "model.init_args.generator.init_args.sampling": {"num_steps": 2},
        "data.init_args.batch_size": 4,
        "trainer.precision": "32-true",
    },
    "real": SMALL_CAPTIONER | NO_WORKERS,
    "mixed": SMALL_CAPTIONER | NO_WORKERS | {"data.init_args.real.init_args.num_workers": 0},
}
SMALL |= {name: SMALL[name] | NO_WORKERS for name in ("tokenize", "generator")}


def run(words: list[str], changes: dict[str, Any]) -> Trainer:
    """Run a command of a README with changed settings."""
    settings: dict[str, Any] = {}
    for path, value in changes.items():
        *parents, last = path.split(".")
        inner = settings
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = inner.get(last, {}) | value if isinstance(value, dict) else value
    Path("changes.yaml").write_text(yaml.safe_dump(settings))
    return run_trainer([*words, "--config", TINY, "--config", "changes.yaml"]).trainer


def run_chain(name: str, changes: dict[str, dict[str, Any]]) -> dict[str, Trainer]:
    """Run all commands of a README; copy what a fit exports to where the next command reads it."""
    trainers = {}
    for words in read_commands(name):
        step = Path(words[-1]).stem
        trainers[step] = run(words, changes[step])
        if step in ("codebook", "generator"):
            shutil.copytree(Path(trainers[step].log_dir or "") / step, f"runs/{name}/{step}")
    return trainers


def check_captioners(trainers: dict[str, Trainer], synthetic: str) -> None:
    for step in ("real", "mixed"):
        assert trainers[step].global_step == 2
        assert trainers[step].callback_metrics["train/loss"].isfinite()
        card = json.loads((Path(trainers[step].log_dir or "") / "cider/val-step=2/protocol.json").read_text())
        assert (card["num_images"], card["sources"]) == (2, ["coco"])
    assert trainers["mixed"].callback_metrics[f"data/fraction_{synthetic}"] == 0.5


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_the_chain_of_the_paper_runs(folder: Path) -> None:
    trainers = run_chain("paper", SMALL)
    for shards, codes in (("cc12m", 8), ("genpair", 8)):
        manifest = json.loads((folder / "shards" / shards / "manifest.json").read_text())
        assert (manifest["num_records"], manifest["codebook_size"]) == (codes, 64)
    check_captioners(trainers, "genpair")


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_the_chain_of_coco_runs(folder: Path) -> None:
    (folder / "architectures").mkdir()
    (folder / "architectures" / "tiny-coco.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(folder / "architectures")
    save_file(open_clip.create_model("tiny-coco").state_dict(), "tiny-coco.safetensors")
    encoder = {"init_args": {"model": "tiny-coco", "pretrained": "tiny-coco.safetensors"}}
    quantized = {"init_args": {"encoder": encoder}}
    codebook = {"encoder": encoder, "codebook_size": 16, "num_levels": 2}
    changes: dict[str, dict[str, Any]] = {
        "codebook": {
            "model.init_args.learner.init_args": codebook,
            "data.init_args.batch_size": 8,
            "data.init_args.val_batch_size": 2,
            **NO_WORKERS,
        },
        "tokenize": {"model.init_args.tokenizer": quantized},
        "generator": {"model.init_args.tokenizer": quantized},
        "captions": {},
        "synthesize": {"model.init_args.generator.init_args.tokenizer": quantized},
        "real": {"model.init_args.image_encoder": quantized, "model.init_args.resampler.init_args.num_positions": 16},
    }
    changes["mixed"] = changes["real"]
    changes = {step: SMALL.get(step, {}) | changed for step, changed in changes.items()}
    trainers = run_chain("coco", changes)
    for shards in ("coco", "coco-synthetic"):
        manifest = json.loads((folder / "shards" / shards / "manifest.json").read_text())
        assert (manifest["num_records"], manifest["codebook_size"], manifest["num_levels"]) == (8, 16, 2)
    check_captioners(trainers, "coco-synthetic")
