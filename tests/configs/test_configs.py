"""All shipped configs parse, and all run files run for two steps."""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from synth2_lightning.cli import main
from synth2_lightning.cli.lightning_cli import CommandLine
from synth2_lightning.cli.run_files import run_file_folder
from synth2_lightning.cli.trainer import run_trainer
from synth2_lightning.modules.adversarial_tokenizer import AdversarialTokenizerModule
from synth2_lightning.modules.captioning import VisionLanguageModule

CONFIGS = run_file_folder()
TINY = Path(__file__).with_name("tiny.yaml")
FITS = ("mixed", "real", "synthetic", "tokenizer")
PHOTOS = ("fit", "mixed.yaml", "experiments/flickr8k/overlays/all.yaml")
OVERLAYS = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("overlays/**/*.yaml"))
BASES = {  # command and files before an overlay, if these are not fit and mixed.yaml
    "overlays/model/vqgan_losses.yaml": ("fit", "tokenizer.yaml"),
    "overlays/model/score_open_clip.yaml": ("predict", "score.yaml"),
    "overlays/model/captions_openai.yaml": ("predict", "captions.yaml"),
    "overlays/model/captions_writer.yaml": ("predict", "captions.yaml"),
    "overlays/data/mined_words.yaml": ("predict", "captions.yaml", "overlays/model/captions_writer.yaml"),
    "experiments/flickr8k/overlays/codebook.yaml": ("fit", "tokenizer.yaml"),
    "experiments/flickr8k/overlays/tokenize.yaml": ("predict", "tokenize.yaml"),
    "experiments/flickr8k/overlays/first_1000.yaml": PHOTOS,
    "experiments/flickr8k/overlays/smollm2_prefix.yaml": (
        "fit",
        "mixed.yaml",
        "experiments/flickr8k/overlays/all.yaml",
    ),
    "experiments/flickr8k/overlays/smollm2_cross.yaml": PHOTOS,
    **{
        f"experiments/flickr8k/overlays/{name}.yaml": ("predict", "experiments/flickr8k/synthesize.yaml")
        for name in ("draws", "by_image")
    },
    **{
        f"experiments/flickr8k/overlays/{name}.yaml": ("fit", "experiments/flickr8k/mixed.yaml")
        for name in ("best_draw", "weights", "reassigned")
    },
    "overlays/model/muse_411m.yaml": ("fit", "generator.yaml", "experiments/paper/generator.yaml"),
    "overlays/model/muse_40m.yaml": ("fit", "generator.yaml", "experiments/paper/generator.yaml"),
}


def test_every_run_file_is_known_to_these_tests() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {
        *FITS,
        "photos",
        "writer",
        "tokenize",
        "generator",
        "captions",
        "synthesize",
        "score",
    }


def test_amuseds_vqgan_has_its_pixel_range() -> None:
    def find(value: object) -> Iterator[dict[str, Any]]:
        members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if isinstance(value, dict) and str(value.get("model", "")).startswith("amused/") and "subfolder" in value:
            yield value
        for member in members:
            yield from find(member)

    tokenizers = [found for path in CONFIGS.rglob("*.yaml") for found in find(yaml.safe_load(path.read_text()))]
    assert len(tokenizers) >= 1  # in experiments/paper/model/tokenizer.yaml
    assert all(tokenizer["pixel_range"] == [0, 1] for tokenizer in tokenizers)


@pytest.mark.parametrize(
    "words",
    [
        *(
            f"fit experiments/flickr8k/{name}.yaml"
            for name in ("codebook", "generator", "real", "mixed", "continuous", "writer")
        ),
        "fit experiments/flickr8k/generator.yaml experiments/flickr8k/generator_own.yaml",
        *(f"fit experiments/flickr8k/{name}.yaml overlays/data/mirroring.yaml" for name in ("generator", "mixed")),
        *(
            f"fit experiments/flickr8k/{name}.yaml experiments/flickr8k/overlays/cider.yaml"
            for name in ("real", "mixed")
        ),
        "fit mixed.yaml experiments/flickr8k/overlays/all.yaml experiments/flickr8k/overlays/cider.yaml",
        *(f"predict experiments/flickr8k/{name}.yaml" for name in ("tokenize", "captions", "synthesize", "reassign")),
        "predict experiments/flickr8k/score.yaml --model.scorer.checkpoint=last.ckpt",
        "predict experiments/flickr8k/recaption.yaml --model.checkpoint=last.ckpt",
        "predict experiments/flickr8k/synthesize.yaml experiments/flickr8k/synthesize_own.yaml",
        "predict experiments/flickr8k/synthesize.yaml experiments/flickr8k/synthesize_captions.yaml",
        "predict experiments/flickr8k/captions.yaml experiments/flickr8k/captions_beginnings.yaml",
        "predict experiments/flickr8k/captions.yaml experiments/flickr8k/captions_writer.yaml",
        "predict experiments/flickr8k/captions.yaml experiments/flickr8k/captions_writer.yaml "
        "experiments/flickr8k/captions_writer_imagenet.yaml",
        "fit photos.yaml",
        "fit scenes/questions.yaml",
        "fit real.yaml scenes/question_words.yaml",
        "predict scenes/captions.yaml",
        "predict synthesize.yaml scenes/synthesize_captions.yaml",
    ],
)
def test_files_of_experiments_parse(words: str, parse: Callable[[Sequence[str]], None]) -> None:
    parse(to_words(words))


def to_words(words: str) -> list[str]:
    """Return the words of a command and its run files."""
    command, *others = words.split()
    return [command, *(word for one in others for word in ([one] if one.startswith("--") else ["--config", one]))]


@pytest.mark.parametrize(
    "words",  # not run by other fast tests
    [
        "fit generator.yaml",
        "predict synthesize.yaml",
        "predict synthesize.yaml scenes/synthesize_captions.yaml",
        "predict score.yaml --model.scorer.checkpoint=last.ckpt",
        "predict score.yaml overlays/model/score_open_clip.yaml",
        "predict captions.yaml overlays/model/captions_openai.yaml",
        "predict experiments/flickr8k/captions.yaml",
        "fit experiments/flickr8k/codebook.yaml",
        "fit tokenizer.yaml overlays/model/vqgan_losses.yaml",
        "fit mixed.yaml overlays/strategy/fsdp.yaml overlays/trainer/weight_averaging.yaml",
        "test mixed.yaml protocols/nocaps.yaml",
    ],
)
def test_what_run_files_describe_is_constructed_without_weights(
    words: str, build: Callable[[Sequence[str]], CommandLine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = build(to_words(words))
    assert isinstance(command.model, LightningModule)
    assert isinstance(command.datamodule, LightningDataModule)
    assert not list(tmp_path.iterdir())


def test_every_file_is_parsed_by_these_tests_or_part_of_another() -> None:
    files = {path.relative_to(CONFIGS): path.read_text() for path in CONFIGS.rglob("*.yaml")}
    parts = {
        (path.parent / name).as_posix()
        for path, text in files.items()
        for name in re.findall(r": ([\w./]+\.yaml)", text)
    }
    parts = {os.path.normpath(name) for name in parts}
    tests = "".join(path.read_text() for path in sorted(TINY.parent.glob("test_*.py")))
    unknown = [
        path.as_posix()
        for path in files
        if path.as_posix() not in parts
        and path.parts[0] not in ("prompts", "protocols")  # other tests parse all of these
        # Tests parse the commands in the README.md of these.
        and path.parent.name not in ("paper", "coco", "coco_1_percent", "text_only")
        and "overlays" not in path.parts
        and path.stem not in tests
    ]
    assert not unknown


@pytest.mark.parametrize("file", ["captions", "score", "synthesize", "tokenize"])
def test_the_folder_to_write_is_an_argument(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--config", f"{file}.yaml", "--trainer.callbacks.folder=elsewhere", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"][-1]["init_args"]["folder"] == "elsewhere"


@pytest.mark.parametrize("kind", ["train", "val", "test", "predict"])
def test_one_batch_is_not_all_batches(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config", "mixed.yaml", f"--trainer.limit_{kind}_batches=1", "--print_config"])
    limit = yaml.safe_load(capsys.readouterr().out)["trainer"][f"limit_{kind}_batches"]
    assert isinstance(limit, int), limit  # the fraction 1.0 would be all batches


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_parse(overlay: str, parse: Callable[[Sequence[str]], None]) -> None:
    parse(to_words(" ".join((*BASES.get(overlay, ("fit", "mixed.yaml")), overlay))))


def check_checkpoint(trainer: Trainer) -> None:
    """Check that a checkpoint has trained weights only, contains no code, and loads without arguments."""
    path = Path(trainer.log_dir or "") / "checkpoints" / "last.ckpt"
    trained = trainer.lightning_module.state_dict()
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert set(saved) == set(trained)
    assert not any(name.startswith("image_encoder") for name in saved)
    loaded = VisionLanguageModule.load_from_checkpoint(path, weights_only=True)
    assert all(torch.equal(weight, trained[name]) for name, weight in loaded.state_dict().items())


@pytest.mark.parametrize("name", FITS)
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_fit_runs_two_steps(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = "--data.init_args.real.init_args" if name in ("mixed", "synthetic") else "--data.init_args"
    few = [f"{photos}.num_workers=0", f"{photos}.val.init_args.num_images=8"]
    few += [f"{photos}.train.init_args.num_images=16"]  # the fingerprint of the data reads all of them
    few += ["--data.init_args.num_workers=0", "--data.init_args.batch_size=4"]
    words = ["fit", "--config", f"{name}.yaml", "--config", str(TINY), *few]
    if name == "tokenizer":
        words += ["--model.init_args.tokenizer.init_args.num_free_batches=0"]  # or there is no codebook after two steps
    trainer = run_trainer(words).trainer
    assert trainer.global_step == 2
    assert trainer.callback_metrics["train/loss"].isfinite()
    shown = capsys.readouterr().out
    assert "Trained" in shown  # the summary of components
    assert not [word for word in ("FLOPs", "Epoch", "it/s") if word in shown]  # no progress bar without a terminal
    assert (Path(trainer.log_dir or "") / "config.yaml").is_file()
    if name == "tokenizer":
        assert (Path(trainer.log_dir or "") / "tokenizer" / "config.json").is_file()
    else:
        card = json.loads((Path(trainer.log_dir or "") / "cider" / "val-step=2" / "protocol.json").read_text())
        assert card["num_images"] == 8
        check_checkpoint(trainer)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_the_second_stage_starts_from_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos = "--data.init_args.real.init_args"
    few = [f"{photos}.num_workers=0", f"{photos}.val.init_args.num_images=8", f"{photos}.train.init_args.num_images=16"]
    few += ["--data.init_args.num_workers=0", "--data.init_args.batch_size=4", "--trainer.log_every_n_steps=1"]
    words = ["fit", "--config", "mixed.yaml", "--config", str(TINY)]
    first = run_trainer([*words, *few]).trainer.log_dir or ""
    words += ["--config", "overlays/model/cider.yaml", "--config", str(TINY), f"--trainer.callbacks.weights={first}"]
    trainer = run_trainer([*words, *few]).trainer
    assert trainer.global_step == 2
    assert {"train/reward", "train/complete", "val/cider", "val/bleu_4"} <= trainer.callback_metrics.keys()
    before, after = (
        torch.load(Path(folder) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (first, trainer.log_dir or "")
    )
    changes = {name: (after[name] - weight).abs().max().item() for name, weight in before.items()}
    assert 0 < max(changes.values()) < 1e-3  # two steps times the learning rate; other initial weights differ more
    check_checkpoint(trainer)


@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_photos_in_coco_json_train_a_pretrained_language_model(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    save_model: Callable[[str, str | None], str],
    write_coco: Callable[[Path, str, range], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_coco(tmp_path / "data", "captions_train.json", range(16))
    write_coco(tmp_path / "data", "captions_val.json", range(16, 18))
    language_model = {"model": save_model("llama", None), "gguf_file": None}
    model = {
        "image_encoder": {"class_path": "synth2_lightning.testing.TinyImageTokenizer"},
        "resampler": {"init_args": {"num_positions": 0}},
        "decoder": {"init_args": {"language_model": {"init_args": language_model}}},
    }
    data = {"num_workers": 0, "image_size": 8}
    overlay = {"model": {"init_args": model}, "data": {"init_args": data}}
    (tmp_path / "my_photos.yaml").write_text(yaml.safe_dump(overlay))
    files = [word for file in ("photos.yaml", TINY, "my_photos.yaml") for word in ("--config", str(file))]
    trainer = run_trainer(["fit", *files]).trainer
    assert trainer.global_step == 2
    card = json.loads((Path(trainer.log_dir or "") / "cider" / "val-step=2" / "protocol.json").read_text())
    assert (card["num_images"], card["sources"]) == (2, ["photos"])


@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_language_model_learns_from_captions_and_writes_more(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    save_model: Callable[[str], str],
    write_coco: Callable[[Path, str, range], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_coco(tmp_path / "data", "captions_train.json", range(16))
    source = {"init_args": {"model": save_model("llama"), "gguf_file": None}}
    language_model = {"init_args": {"source": source}}
    (tmp_path / "tiny_model.yaml").write_text(
        yaml.safe_dump({"model": {"init_args": {"language_model": language_model}}})
    )
    files = [word for file in ("writer.yaml", TINY, "tiny_model.yaml") for word in ("--config", str(file))]
    trainer = run_trainer(["fit", *files]).trainer
    assert trainer.global_step == 2
    assert trainer.callback_metrics["val/loss"].isfinite()
    prompts = []
    overlays = ["overlays/model/captions_writer.yaml", "overlays/data/mined_words.yaml"]
    for number, folder in enumerate(("writer-imagenet21k", "writer"), start=1):
        files = [word for name in ("captions.yaml", *overlays[:number]) for word in ("--config", name)]
        command = ["predict", *files, "--data.init_args.num_captions=6", "--trainer.accelerator=cpu"]
        command.append("--data.init_args.concepts.init_args.unsuitable=null")
        run_trainer(command)
        manifest = json.loads((tmp_path / "captions" / folder / "manifest.json").read_text())
        assert manifest["num_written"] == 6
        overlap = next(each for each in manifest["filters"] if each["name"] == "TrainingOverlap")
        assert (overlap["settings"]["captions"], overlap["settings"]["num_captions"]) == ("photos", 32)
        assert 0 <= overlap["fraction_rejected"] <= 1
        prompts.append(manifest["provenance"]["settings"]["data"]["prompt"])
    assert prompts[0] == prompts[1]
    assert (prompts[0]["template"], prompts[0]["num_concepts"]) == ("words@1", 1)


@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_questions_are_trained_on_and_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = [f"--data.init_args.{split}.init_args.num_images=8" for split in ("train", "val")]
    few += ["--data.init_args.num_workers=0", "--data.init_args.batch_size=4"]
    words = ["fit", "--config", "scenes/questions.yaml", "--config", str(TINY), *few]
    trainer = run_trainer(words).trainer
    assert trainer.global_step == 2
    card = json.loads((Path(trainer.log_dir or "") / "vqa_accuracy" / "val-step=2" / "protocol.json").read_text())
    assert card["num_images"] == 8
    assert (card["prompt"], card["generation"]["max_new_tokens"]) == ("{question}", 4)


@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_the_adversary_joins_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = {"tokenizer.init_args.num_free_batches": 0, "start_step": 1, "features": "null"}  # no downloads
    words = [f"--model.init_args.{name}={value}" for name, value in model.items()]
    files = [
        word
        for file in ("tokenizer.yaml", "overlays/model/vqgan_losses.yaml", TINY)
        for word in ("--config", str(file))
    ]
    words += [f"--data.init_args.{split}.init_args.num_images=8" for split in ("train", "val")]
    words += ["--data.init_args.batch_size=4"]
    trainer = run_trainer(["fit", *files, *words]).trainer
    assert trainer.global_step == 2
    assert 0 < float(trainer.callback_metrics["train/discriminator"]) < 4
    path = Path(trainer.log_dir or "") / "checkpoints" / "last.ckpt"
    loaded = AdversarialTokenizerModule.load_from_checkpoint(path, weights_only=True)
    trained = trainer.lightning_module.state_dict()
    assert all(torch.equal(weight, trained[name]) for name, weight in loaded.state_dict().items())
    assert any(name.startswith("discriminator") for name in trained)


@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_tokenize_writes_shards_that_fit_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["num_workers=0", "val_batch_size=4", "predict.init_args.num_images=16"]
    sizes = [f"--data.init_args.{each}" for each in few]
    run_trainer(["predict", "--config", "tokenize.yaml", "--config", str(TINY), *sizes])
    manifest = json.loads((tmp_path / "shards" / "scenes" / "manifest.json").read_text())
    assert manifest["num_records"] == 8
    shards = "--data.init_args.synthetic.init_args"
    words = [f"{shards}.shards=shards/scenes", f"{shards}.keep_fraction=1", "--data.init_args.num_workers=0"]
    few = ["num_workers=0", "train.init_args.num_images=8", "val.init_args.num_images=8"]
    words += ["--data.init_args.batch_size=4", *(f"--data.init_args.real.init_args.{each}" for each in few)]
    trainer = run_trainer(["fit", "--config", "synthetic.yaml", "--config", str(TINY), *words]).trainer
    assert trainer.global_step == 2


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_generator_synthesizes_shards_that_are_scored_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--data.init_args.num_workers=0", "--data.init_args.val.init_args.num_images=24"]
    float32 = "--trainer.precision=32-true"  # processors that emulate bfloat16 take minutes
    few = "--data.init_args.batch_size=8"
    fitted = run_trainer(["fit", "--config", "generator.yaml", "--config", str(TINY), *small, few, float32]).trainer
    assert fitted.callback_metrics["val/loss"].isfinite()
    assert list((tmp_path / "runs" / "version_0" / "generated").glob("*.png"))
    generator = "--model.init_args.generator.init_args.generator=runs/version_0/generator"
    run_trainer(["predict", "--config", "synthesize.yaml", "--config", str(TINY), generator, few, float32])
    manifest = json.loads((tmp_path / "shards" / "scenes-synthetic" / "manifest.json").read_text())
    assert manifest["num_records"] == 16
    assert manifest["provenance"]["settings"]["model"]["generator"].startswith("muse:")
    run_trainer(["fit", "--config", "real.yaml", "--config", str(TINY), *small])
    captioner = "--model.init_args.scorer.init_args.checkpoint=runs/version_1/checkpoints/last.ckpt"
    run_trainer(["predict", "--config", "tokenize.yaml", "--config", str(TINY), "--data.init_args.num_workers=0"])
    run_trainer(["predict", "--config", "score.yaml", "--config", str(TINY), captioner])
    scored = json.loads((tmp_path / "shards" / "scenes-scored" / "manifest.json").read_text())
    assert scored["num_records"] == 16
    assert scored["provenance"]["settings"]["model"]["captioner"].startswith("captioner:")
    assert scored["provenance"]["settings"]["data"]["shards"] == manifest["provenance"]["settings"]
    words = ["--data.init_args.synthetic.init_args.shards=shards/scenes-scored", "--data.init_args.num_workers=0"]
    words += [f"--data.init_args.real.init_args.{few}" for few in ("num_workers=0", "val.init_args.num_images=24")]
    words += ["--data.init_args.batch_size=8", "--data.init_args.synthetic.init_args.keep_fraction=0.5"]
    trainer = run_trainer(["fit", "--config", "synthetic.yaml", "--config", str(TINY), *words]).trainer
    assert trainer.global_step == 2


def read_shards(folder: str) -> dict[str, dict[str, Any]]:
    """Return the rows of shards by their keys."""
    parts = sorted(Path(folder).glob("*.parquet"))
    return {row["key"]: row for part in parts for row in pq.read_table(part).to_pylist()}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("own_cache")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_draws_are_scored_weighted_and_reassigned_by_run_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The overlays and run files of Flickr8k, on Scenes."""
    monkeypatch.chdir(tmp_path)
    experiment = "experiments/flickr8k"

    def run(command: str, *files: str, **settings: object) -> Trainer:
        words = [word for file in (*files, str(TINY)) for word in ("--config", file)]
        return run_trainer([command, *words, *(f"--{name}={value}" for name, value in settings.items())]).trainer

    captions = "data.init_args.captions.init_args.photos.init_args"
    few = {f"{captions}.num_images": 2, "data.init_args.batch_size": 16, "trainer.precision": "32-true"}
    run("predict", "synthesize.yaml", f"{experiment}/overlays/draws.yaml", **few)
    draws = read_shards("shards/flickr8k-draws")
    originals = {key for key in draws if "~" not in key}
    assert set(draws) == {f"{key}{copy}" for key in originals for copy in ("", "~1", "~2")}
    run("predict", "synthesize.yaml", f"{experiment}/overlays/by_image.yaml", **few)
    scenes = read_shards("shards/flickr8k-scenes")
    assert len(scenes) == 2 * 5
    assert {text for row in scenes.values() for text in row["captions"]} == {
        text for row in draws.values() for text in row["captions"]
    }

    small = {"data.init_args.num_workers": 0, "data.init_args.val.init_args.num_images": 24}
    checkpoint = Path(run("fit", "real.yaml", **small).log_dir or "") / "checkpoints" / "last.ckpt"
    scorer = "model.init_args.scorer.init_args"
    run(
        "predict", f"{experiment}/score.yaml",
        **{f"{scorer}.checkpoint": checkpoint, f"{scorer}.references": "shards/flickr8k-draws"},
    )  # fmt: skip
    assert all(len(row["scores"]) == 1 for row in read_shards("shards/flickr8k-draws-scored").values())
    run("predict", f"{experiment}/recaption.yaml", **{"model.init_args.checkpoint": checkpoint})
    assert read_shards("shards/flickr8k-pool").keys() == draws.keys()
    run(
        "predict", f"{experiment}/reassign.yaml",
        **{
            "model.init_args.encoder": "synth2_lightning.testing.TinyTextEncoder",
            "model.init_args.pool": "shards/flickr8k-draws",  # two steps of training are too few for captions
            "data.init_args.shards": "shards/flickr8k-scenes",
        },
    )  # fmt: skip
    pool = {tuple(row["tokens"]) for row in draws.values()}
    assert all(tuple(row["tokens"]) in pool for row in read_shards("shards/flickr8k-reassigned").values())

    data = {
        "data.init_args.num_workers": 0,
        "data.init_args.batch_size": 8,
        "data.init_args.real.init_args.num_workers": 0,
        "data.init_args.real.init_args.val.init_args.num_images": 24,
    }
    for overlays in (["best_draw", "weights"], ["reassigned"]):
        files = [f"{experiment}/overlays/{name}.yaml" for name in overlays]
        trainer = run("fit", "mixed.yaml", *files, **data)
        assert trainer.global_step == 2
        assert trainer.callback_metrics["train/loss"].isfinite()


def test_names_become_captions_by_a_run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generator = "--model.init_args.generator=synth2_lightning.testing.TinyCaptionGenerator"
    run_trainer(["predict", "--config", "captions.yaml", generator, "--data.init_args.num_captions=8"])
    manifest = json.loads((tmp_path / "captions" / "imagenet21k" / "manifest.json").read_text())
    assert manifest["num_written"] == 8
    assert [each["name"] for each in manifest["filters"]][-1] == "NearDuplicates"
    assert manifest["provenance"]["settings"]["data"]["prompt"]["template"] == "small-model@1"


@pytest.mark.parametrize("path", sorted((CONFIGS / "prompts").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_template_leaves_nothing_of_the_one_before(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--config", "captions.yaml", f"--data.init_args.prompt={path}", "--print_config"])
    found = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["prompt"]["init_args"]
    template = yaml.safe_load(path.read_text())["init_args"]
    assert {name: found[name] for name in template if name != "examples"} == {
        name: value for name, value in template.items() if name != "examples"
    }
    assert [each["caption"] for each in found["examples"]] == [each["caption"] for each in template["examples"]]
    assert set(template) >= {"num_concepts", "openings", "system", "request"}
