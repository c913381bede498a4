"""Chains of run files: the commands of their READMEs parse, and run on tiny networks of the same layout."""

import json
import re
import shlex
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

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
from synth2_lightning.compat.lightning import attributes_of
from synth2_lightning.datamodules.base import ImageTextDataModule
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


class Command(NamedTuple):
    """Command of a README.

    Attributes:
        words: Its words, without ``synth2``.
        made: Output folder, as the comment of the command names it; empty if it names none.
    """

    words: list[str]
    made: str


def read_commands(name: str) -> list[Command]:
    """Return the commands of a README that fit or predict."""
    text = (EXPERIMENTS / name / "README.md").read_text("utf-8").replace("\\\n", " ")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    commands = []
    for line in lines:
        words = shlex.split(line, comments=True)
        comment = re.search(r"# ((?:runs|shards|captions)/\S+)", line)
        if words[:2] in (["synth2", "fit"], ["synth2", "predict"]):
            commands.append(Command(words[1:], comment[1] if comment else ""))
    return commands


CHAINS = {name: read_commands(name) for name in ("paper", "coco", "coco_1_percent", "text_only")}
COMMANDS = [(name, number) for name, commands in CHAINS.items() for number in range(len(commands))]


@pytest.mark.parametrize("name", CHAINS)
def test_the_readmes_name_every_run_file(name: str) -> None:
    named = {word for command in CHAINS[name] for word in command.words}
    files = {path.relative_to(EXPERIMENTS.parent).as_posix() for path in (EXPERIMENTS / name).glob("*.yaml")}
    assert len(files) >= 4
    assert files <= named


@pytest.mark.parametrize(("name", "number"), COMMANDS)
def test_commands_parse_and_read_what_earlier_ones_make(
    name: str, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    command = CHAINS[name][number]
    with pytest.raises(SystemExit) as stop:
        main([*command.words, "--print_config"])
    assert stop.value.code == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    written = {spec.get("init_args", {}).get("folder") for spec in settings["trainer"].pop("callbacks")}
    written.add(settings["model"]["init_args"].pop("export_to", None))
    assert written - {None} == {command.made} - {""}
    names = list(find_names(settings))
    assert not (unwanted := [name for name in names if "scenes" in name]), unwanted
    made = {earlier.made for earlier in CHAINS[name][:number]}
    read = {name.removesuffix("/captions.parquet") for name in names if re.match("(runs|shards|captions)/", name)}
    assert read <= made


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
COCO_1_PERCENT, TEXT_ONLY = "experiments/coco_1_percent/generator.yaml", "experiments/text_only/generator.yaml"
VQGAN_SIZES, CLIP_SIZES = (64, 8192, 1, (16, 16)), (768, 1024, 4, (7, 7))  # width, codes, levels, grid


@pytest.mark.parametrize(
    ("files", "sizes", "text_dim"),
    [
        (PAPER, VQGAN_SIZES, 1024),
        ((*PAPER, "overlays/model/muse_411m.yaml"), VQGAN_SIZES, 1024),
        ((*PAPER, "overlays/model/muse_40m.yaml"), VQGAN_SIZES, 768),
        (COCO, CLIP_SIZES, 768),
        ((*COCO, COCO_1_PERCENT), CLIP_SIZES, 768),
        ((*COCO, TEXT_ONLY), CLIP_SIZES, 768),
    ],
)
def test_generators_have_the_stated_number_of_parameters(
    files: tuple[str, ...], sizes: tuple[int, int, int, tuple[int, int]], text_dim: int
) -> None:
    arguments: dict[str, Any] = {}
    for file in files:
        text = (EXPERIMENTS.parent / file).read_text("utf-8")
        arguments |= yaml.safe_load(text)["model"]["init_args"].get("network", {}).get("init_args", {})
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
    for name in ("cc12m", "cc3m"):
        write_tar(Path("data", name))
    write_karpathy(Path("data/coco"), "val2014", "restval")
    write_karpathy(Path("data/flickr30k"), "images", "train")
    return tmp_path


def write_tar(folder: Path) -> None:
    """Write a tar of eight images."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for number in range(8):
            for suffix, content in (("jpg", noise(number)), ("txt", b"a small red circle")):
                member = tarfile.TarInfo(f"{number:08}.{suffix}")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))


def write_karpathy(folder: Path, images: str, last_split: str) -> None:
    """Write a split file and images: six of ``train``, two each of the last split, of ``val`` and of ``test``."""
    (folder / images).mkdir(parents=True)
    records = []
    for number, split in enumerate([*["train"] * 6, *[last_split] * 2, *["val"] * 2, *["test"] * 2]):
        (folder / images / f"{number}.jpg").write_bytes(noise(number))
        sentences = [{"raw": "a small red circle"}, {"raw": "a large blue square"}]
        record = {"filename": f"{number}.jpg", "split": split, "sentences": sentences}
        records.append(record | ({"filepath": images, "cocoid": number} if folder.name == "coco" else {}))
    (folder / f"dataset_{folder.name}.json").write_text(json.dumps({"images": records}))


@pytest.fixture
def encoder(folder: Path) -> dict[str, Any]:
    """Return a tiny CLIP encoder of random weights, for run files."""
    (folder / "architectures").mkdir()
    (folder / "architectures" / "tiny-clip.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(folder / "architectures")
    save_file(open_clip.create_model("tiny-clip").state_dict(), "tiny-clip.safetensors")
    return {"init_args": {"model": "tiny-clip", "pretrained": "tiny-clip.safetensors"}}


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
        # The filters keep the tiny generator's answers to this prompt.
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
    """Run all commands of a README."""
    trainers = {}
    for command in CHAINS[name]:
        step = Path(command.words[-1]).stem
        trainers[step] = run(command.words, changes[step])
        assert Path(command.made).is_dir()
    return trainers


def clip_changes(encoder: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the changed settings of each command of a chain in the features of CLIP."""
    quantized = {"init_args": {"encoder": encoder}}
    codebook = {"encoder": encoder, "codebook_size": 16, "num_levels": 2}
    few = {"data.init_args.batch_size": 8, "data.init_args.val_batch_size": 2}
    real = {"model.init_args.image_encoder": quantized, "model.init_args.resampler.init_args.num_positions": 16}
    changes: dict[str, dict[str, Any]] = {
        "codebook": {"model.init_args.learner.init_args": codebook, **few, **NO_WORKERS},
        "tokenize": {"model.init_args.tokenizer": quantized},
        "generator": {"model.init_args.tokenizer": quantized},
        "captions": {},
        "synthesize": {"model.init_args.generator.init_args.tokenizer": quantized},
        "real": real,
        "mixed": real,
    }
    return {step: SMALL.get(step, {}) | changed for step, changed in changes.items()}


def check_captioner(trainer: Trainer, source: str) -> None:
    assert trainer.global_step == 2
    assert trainer.callback_metrics["train/loss"].isfinite()
    card = json.loads((Path(trainer.log_dir or "") / "cider/val-step=2/protocol.json").read_text())
    assert (card["num_images"], card["sources"]) == (2, [source])


def data_of(trainer: Trainer) -> ImageTextDataModule:
    data = attributes_of(trainer).datamodule
    assert isinstance(data, ImageTextDataModule)
    return data


def check_shards(*names: str) -> None:
    for name in names:
        manifest = json.loads(Path("shards", name, "manifest.json").read_text())
        assert (manifest["num_records"], manifest["codebook_size"], manifest["num_levels"]) == (8, 16, 2)


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_the_chain_of_the_paper_runs(folder: Path) -> None:
    trainers = run_chain("paper", SMALL)
    for shards, codes in (("cc12m", 8), ("genpair", 8)):
        manifest = json.loads((folder / "shards" / shards / "manifest.json").read_text())
        assert (manifest["num_records"], manifest["codebook_size"]) == (codes, 64)
    for step in ("real", "mixed"):
        check_captioner(trainers[step], "coco")
    assert trainers["mixed"].callback_metrics["data/fraction_genpair"] == 0.5


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_the_chain_of_coco_runs(encoder: dict[str, Any]) -> None:
    trainers = run_chain("coco", clip_changes(encoder))
    check_shards("coco", "coco-synthetic")
    for step in ("real", "mixed"):
        check_captioner(trainers[step], "coco")
    assert trainers["mixed"].callback_metrics["data/fraction_coco-synthetic"] == 0.5


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_the_chain_of_coco_with_1_percent_of_its_images_runs(encoder: dict[str, Any]) -> None:
    changes = clip_changes(encoder)
    for step, limit in (("generator", "limit"), ("real", "limit"), ("mixed", "real.init_args.limit")):
        assert read_setting(step, f"data.init_args.{limit}") == 1133  # 1 % of 113,287 images
        changes[step][f"data.init_args.{limit}"] = 2
    changes["mixed"]["data.init_args.synthetic_fraction.init_args.fraction"] = 0.75
    trainers = run_chain("coco_1_percent", changes)
    check_shards("coco", "coco-1-percent")
    data = [data_of(trainers[step]) for step in ("generator", "real", "mixed")]
    assert [each.count_train_pairs() for each in data] == [(4,), (4,), (4, 8)]
    keys = [set(each.train_pairs.read(range(4)).keys) for each in data]
    assert keys[0] == keys[1] == keys[2]
    for step in ("real", "mixed"):
        check_captioner(trainers[step], "coco")
    assert trainers["mixed"].callback_metrics["data/fraction_coco-1-percent"] == 0.75


def read_setting(step: str, path: str) -> Any:
    """Return a setting of a run file of the experiment with 1 % of the images."""
    value = yaml.safe_load((EXPERIMENTS / "coco_1_percent" / f"{step}.yaml").read_text("utf-8"))
    for name in path.split("."):
        value = value[name]
    return value


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_the_chain_of_captions_only_runs(encoder: dict[str, Any]) -> None:
    changes = clip_changes(encoder)
    for name in ("coco", "flickr30k"):
        changes[f"synthesize_{name}"] = changes["synthesize"]
        changes[f"captioner_{name}"] = changes["mixed"]
    trainers = run_chain("text_only", changes)
    check_shards("cc3m", "text-only-coco", "text-only-flickr30k")
    assert data_of(trainers["generator"]).train_pairs.read([0]).sources == ("cc3m",)
    for name in ("coco", "flickr30k"):
        trainer = trainers[f"captioner_{name}"]
        assert data_of(trainer).count_train_pairs() == (0, 8)
        check_captioner(trainer, name)
        assert trainer.callback_metrics[f"data/fraction_text-only-{name}"] == 1.0
