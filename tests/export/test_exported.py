import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml
from lightning import Trainer, __version__
from PIL import Image
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.cider import CiderCallback
from synth2_lightning.datamodules.real import RealDataModule
from synth2_lightning.export.captioner import load
from synth2_lightning.export.exported import export_captioner, load_exported, save_captioner
from synth2_lightning.export.folder import is_exported
from synth2_lightning.export.runs import find_run
from synth2_lightning.io.class_specs import build_component
from synth2_lightning.io.safetensors import read_safetensors
from synth2_lightning.io.trusted_packages import trusting
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.sources.folder import FolderSource
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch

TINY: dict[str, Any] = {
    "image_encoder": {"class_path": "synth2_lightning.testing.TinyImageTokenizer"},
    "resampler": {"class_path": "synth2_lightning.testing.TinyResampler"},
    "decoder": {"class_path": "synth2_lightning.testing.TinyDecoder"},
}
CARD = {
    "metric": "CIDEr-D",
    "score": 0.75,
    "human_score": 0.5,
    "split": "val",
    "num_images": 3,
    "num_references": 6,
    "prompt": "a|b",
    "generation": {"num_beams": 4, "max_new_tokens": 30},
}
SOURCE = {"class_path": "synth2_lightning.sources.coco.CocoSource", "init_args": {"images": "/home/me/secret/train"}}
DATA: dict[str, Any] = {
    "class_path": "synth2_lightning.datamodules.mixed.MixedDataModule",
    "init_args": {
        "real": {
            "class_path": "synth2_lightning.datamodules.real.RealDataModule",
            "init_args": {"train": SOURCE, "predict": None},
        },
        "synthetic": {
            "class_path": "synth2_lightning.datamodules.synthetic.SyntheticDataModule",
            "init_args": {"shards": "package://synth2_lightning/scenes/shards", "keep_fraction": 0.7},
        },
        "synthetic_fraction": {
            "class_path": "synth2_lightning.datamodules.fraction.ConstantFraction",
            "init_args": {"fraction": 0.5},
        },
    },
}

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a run folder as ``synth2 fit`` does, without training, and returns it."""

    def make(class_path: str = "synth2_lightning.modules.captioning.VisionLanguageModule", **parts: Any) -> Path:
        folder = tmp_path / "runs" / "version_0"
        arguments = {**TINY, **parts}
        with trusting([class_path.split(".", maxsplit=1)[0]]):
            module = build_component({"class_path": class_path, "init_args": arguments}, VisionLanguageModule)
        module.configure_model()
        for weight in module.parameters():
            if weight.requires_grad:
                torch.nn.init.normal_(weight)
        settings = {"_class_path": class_path, "_instantiator": "lightning.pytorch.cli.instantiate_module", **arguments}
        checkpoint = {
            "state_dict": module.state_dict(),
            "hyper_parameters": {**settings, "lr_scheduler": None},
            "global_step": 2,
            "pytorch-lightning_version": __version__,
        }
        (folder / "checkpoints").mkdir(parents=True)
        torch.save(checkpoint, folder / "checkpoints" / "best-step=2.ckpt")
        (folder / "config.yaml").write_text(yaml.safe_dump({"data": DATA}))
        (folder / "cider" / "val-step=2").mkdir(parents=True)
        (folder / "cider" / "val-step=2" / "protocol.json").write_text(json.dumps(CARD))
        (folder / "cider" / "val-step=1").mkdir()
        (folder / "cider" / "val-step=1" / "protocol.json").write_text(json.dumps({**CARD, "score": 0.1}))
        return folder

    return make


def _load(run: Path) -> VisionLanguageModule:
    checkpoint = find_run(run).checkpoint
    return VisionLanguageModule.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval()


def _same_bits(one: VisionLanguageModule, other: VisionLanguageModule) -> bool:
    before, after = one.state_dict(), other.state_dict()
    return before.keys() == after.keys() and all(
        torch.equal(before[name].view(torch.uint8), after[name].view(torch.uint8)) for name in before
    )


def _captions(module: VisionLanguageModule) -> list[str]:
    return module.caption(tiny_batch(6).image)


def test_a_loaded_module_is_saved_with_the_steps_of_its_weights(make_run: MakeRun, tmp_path: Path) -> None:
    folder = save_captioner(_load(make_run()), tmp_path / "captioner")
    assert json.loads((folder / "config.json").read_text())["step"] == 2
    assert load_exported(folder).trained_steps == 2
    _edit(folder, step="/../2")
    assert load_exported(folder).trained_steps is None


def test_a_module_is_saved_with_the_scores_of_a_run_without_a_logger(tmp_path: Path) -> None:
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    data: Any = DataLoader([tiny_batch(4)], batch_size=None)  # type: ignore[arg-type]
    settings: Any = {"logger": False, "enable_progress_bar": False, "callbacks": [CiderCallback()]}
    trainer = Trainer(accelerator="cpu", default_root_dir=tmp_path / "run", **settings)
    trainer.validate(module, data, verbose=False)
    assert "| CIDEr-D |" in (save_captioner(module, tmp_path / "captioner") / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["model", "codebooks", "frozen_parts", "versions"])
def test_a_config_with_other_content_is_refused(name: str, make_run: MakeRun, tmp_path: Path) -> None:
    folder = export_captioner(make_run(), tmp_path / "captioner")
    _edit(folder, **{name: ["a"]})
    with pytest.raises(ValueError, match=rf"config\.json has {name}=\['a'\]; expected a mapping"):
        load_exported(folder)


def test_frozen_parts_that_the_module_does_not_have_are_ignored(make_run: MakeRun, tmp_path: Path) -> None:
    folder = export_captioner(make_run(), tmp_path / "captioner")
    parts = json.loads((folder / "config.json").read_text())["frozen_parts"]
    _edit(folder, frozen_parts=parts | {"trainer": "trainer:00000000"})
    assert load_exported(folder).num_trainable()


def test_the_training_data_in_the_card_is_not_that_of_a_test(tmp_path: Path) -> None:
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    settings: Any = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_steps=1, limit_val_batches=0, default_root_dir=tmp_path, **settings)
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    (tmp_path / "one.txt").write_text("a dark field")
    photos = FolderSource(str(tmp_path))
    loader: Any = DataLoader([tiny_batch()], batch_size=None)  # type: ignore[arg-type]
    trainer.fit(module, RealDataModule(photos, photos, batch_size=1, num_workers=0, image_encoder=module.image_encoder))
    for data in (
        RealDataModule(test=photos, num_workers=0, val_batch_size=7, image_encoder=module.image_encoder),
        loader,
    ):
        trainer.test(module, data, verbose=False)
        card = (save_captioner(module, tmp_path / "captioner") / "README.md").read_text("utf-8")
        assert "| train | FolderSource |" in card
        assert "val_batch_size=7" not in card


def test_a_captioner_loads_back_with_the_same_bits_and_captions(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    folder = export_captioner(run, tmp_path / "captioner")
    loaded = load_exported(folder)
    assert _same_bits(loaded, _load(run))
    assert _captions(loaded) == _captions(_load(run))
    assert not loaded.training
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert is_exported(folder)


def test_tied_words_a_vocabulary_of_this_machine_and_beams_come_back(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shutil import copytree

    from synth2_lightning.io.locations import resolve

    monkeypatch.chdir(tmp_path)
    copytree(resolve("package://synth2_lightning/scenes/vocabulary", "words"), tmp_path / "words")
    config = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 32}
    decoder = {
        "class_path": "synth2_lightning.decoders.prefix.PrefixDecoder",
        "init_args": {
            "language_model": {
                "class_path": "synth2_lightning.decoders.language_model.NewLanguageModel",
                "init_args": {"config": config, "tokenizer": "words"},
            },
            "prompt": "README",
        },
    }
    (tmp_path / "README").touch()  # the value is a prompt, although a file has this name
    run = make_run(decoder=decoder, generation={"max_new_tokens": 5, "num_beams": 2})
    expected = _captions(_load(run))
    folder = export_captioner(run, tmp_path / "captioner")
    description = json.loads((folder / "config.json").read_text())["model"]["init_args"]["decoder"]["init_args"]
    tokenizer = "here://files/decoder.language_model.tokenizer/words"
    assert description["language_model"]["init_args"]["tokenizer"] == tokenizer
    assert description["prompt"] == "README"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = load_exported(folder)
    assert _captions(loaded) == expected
    words: Any = cast(Any, loaded.decoder).lm
    assert words.lm_head.weight.data_ptr() == words.transformer.wte.weight.data_ptr()
    assert loaded.generation.num_beams == 2


def test_the_card_has_scores_data_and_use(make_run: MakeRun, tmp_path: Path) -> None:
    other = tmp_path / "nocaps.json"
    other.write_text(json.dumps({**CARD, "score": 1.25, "split": "nocaps near-domain"}))
    export_captioner(make_run(), tmp_path / "captioner", license="cc-by-4.0", cards=[other])
    text = (tmp_path / "captioner" / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    front = yaml.safe_load(head)
    results = front["model-index"][0]["results"]
    assert [each["metrics"][0]["value"] for each in results] == [0.75, 1.25]
    assert results[0]["dataset"]["split"] == "val"
    assert results[0]["metrics"][0]["args"]["generation"] == {"num_beams": 4, "max_new_tokens": 30}
    assert front == {
        "library_name": "synth2-lightning",
        "license": "cc-by-4.0",
        "model-index": front["model-index"],
        "pipeline_tag": "image-text-to-text",
        "tags": ["image-captioning", "synth2-lightning", "vision-language", "synthetic-data"],
    }
    assert "| CIDEr-D | 0.7500 | 0.5000 | val | 3 | 6 | `a/b` | 4 beams, at most 30 tokens |" in body
    assert "| CIDEr-D | 1.2500 | 0.5000 | nocaps near-domain |" in body
    assert "0.1000" not in body  # the score of another checkpoint
    assert re.search(r"Constant\w+ \{'\w+': 0\.5\}", body)
    assert "vqgan-512:897db351" in body
    assert "| images=…/train |" in body
    assert "secret" not in text
    assert 'synth2_lightning.load("captioner")' in body


def test_nothing_of_this_machine_is_in_an_export(make_run: MakeRun, tmp_path: Path) -> None:
    folder = export_captioner(make_run(), tmp_path / "captioner")
    written = (folder / "config.json").read_text() + (folder / "README.md").read_text()
    assert str(tmp_path) not in written
    assert "optimizer" not in written


def test_an_earlier_export_is_replaced_and_anything_else_is_kept(make_run: MakeRun, tmp_path: Path) -> None:
    run, folder = make_run(), tmp_path / "captioner"
    folder.mkdir()
    export_captioner(run, folder)
    export_captioner(run, folder, license="mit")
    assert "license: mit" in (folder / "README.md").read_text()
    (folder / "notes.txt").touch()
    with pytest.raises(FileExistsError, match=r"'notes\.txt'.*[Ee]xpected a folder"):
        export_captioner(run, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captioner", "runs"]


def test_an_export_that_is_replaced_while_it_is_read_is_read_again(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, folder = make_run(), tmp_path / "captioner"
    export_captioner(run, folder)
    left = ["MIT"]

    def replace_first(path: Path) -> dict[str, torch.Tensor]:
        if left:
            left.clear()
            checkpoint = torch.load(run / "checkpoints" / "best-step=2.ckpt", weights_only=True)
            checkpoint["state_dict"] = {name: weight * 2 for name, weight in checkpoint["state_dict"].items()}
            torch.save(checkpoint, run / "checkpoints" / "best-step=2.ckpt")
            with ThreadPoolExecutor(1) as another:  # as in another process
                another.submit(export_captioner, run, folder).result()
            raise ValueError("the file is gone")
        return read_safetensors(path)

    monkeypatch.setattr("synth2_lightning.export.exported.read_safetensors", replace_first)
    assert _same_bits(load_exported(folder), _load(run))


def test_what_a_killed_export_had_completed_is_read_and_put_in_place_by_the_next(
    make_run: MakeRun, tmp_path: Path
) -> None:
    folder = export_captioner(make_run(), tmp_path / "captioner")
    shutil.copytree(folder, folder / ".replacement")
    (folder / "model.safetensors").write_bytes(b"of the old one")
    assert is_exported(folder)
    assert load_exported(folder).state_dict()
    (folder / ".draft").mkdir()
    export_captioner(tmp_path / "runs" / "version_0", folder)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_an_export_that_fails_leaves_nothing_behind(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    with pytest.raises(FileNotFoundError, match=r"protocol card.*'nothing\.json'"):
        export_captioner(run, tmp_path / "captioner", cards=["nothing.json"])
    (run / "config.yaml").write_text("- no run file")
    with pytest.raises(ValueError, match=r"config\.yaml.*run file"):
        export_captioner(run, tmp_path / "captioner")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_checkpoint_of_a_notebook_and_what_is_none_are_refused(tmp_path: Path) -> None:
    torch.save({"hyper_parameters": {"generation": {}}, "global_step": 1}, tmp_path / "live.ckpt")
    with pytest.raises(ValueError, match=r"checkpoint.* Captioner"):
        export_captioner(tmp_path / "live.ckpt", tmp_path / "captioner")
    (tmp_path / "text.ckpt").write_text("text")
    with pytest.raises(ValueError, match=r"text\.ckpt"):
        export_captioner(tmp_path / "text.ckpt", tmp_path / "captioner")
    with pytest.raises(FileNotFoundError, match=r"checkpoint.*'runs/nothing'"):
        export_captioner("runs/nothing", tmp_path / "captioner")


def _edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


_HEAD = """
from synth2_lightning.modules.captioning import VisionLanguageModule
class LouderModule(VisionLanguageModule):
    def __init__(self, *args, marks: str = "!", **kwargs):
        super().__init__(*args, **kwargs)
        self.marks = marks
    def generate(self, visual, prompts=None):
        return [caption + self.marks for caption in super().generate(visual, prompts)]
"""


def test_a_head_of_another_package_is_imported_only_where_it_is_trusted(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "another_head.py").write_text(_HEAD)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = make_run("another_head.LouderModule", marks="!!")
    sys.modules.pop("another_head")
    with pytest.raises(ValueError, match=r"'another_head\.LouderModule'.*--trust another_head"):
        load(run)
    with pytest.raises(ValueError, match=r"'another_head\.LouderModule'.*--trust another_head"):
        export_captioner(run, tmp_path / "captioner")
    assert "another_head" not in sys.modules
    folder = export_captioner(run, tmp_path / "captioner", trust=["another_head"])
    assert type(load(run, "cpu", trust=["another_head"]).module).__name__ == "LouderModule"
    sys.modules.pop("another_head")
    with pytest.raises(ValueError, match=r"'another_head\.LouderModule'.*--trust another_head"):
        load_exported(folder)
    assert "another_head" not in sys.modules
    loaded = load_exported(folder, trust=["another_head"])
    assert type(loaded).__name__ == "LouderModule"
    assert all(caption.endswith("!!") for caption in _captions(loaded))
    sys.modules.pop("another_head")


_DECODER = "synth2_lightning.testing.TinyDecoder"


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        ({"class_path": "os.system"}, r"'os\.system'.*'os'"),
        ("os.system", r"model\.decoder.*'os\.system'.*'class_path'"),
        ('{"class_path": "os.system"}', r"mapping.*'class_path'"),
        ({"class_path": "synth2_lightning.cli.run_files.Path"}, "LanguageDecoder"),
        ({"class_path": _DECODER, "init_args": {"words": "package://evil/words"}}, "'package://evil/words'"),
        ({"class_path": _DECODER, "init_args": {"words": "here://../../secret"}}, r"'here://\.\./\.\./secret'.*out of"),
        ({"class_path": _DECODER, "init_args": {"words": [{"class_path": "evil.Words"}]}}, r"'evil\.Words'"),
        ({"class_path": _DECODER, "dict_kwargs": {"words": ["package://evil.er/words"]}}, "'evil'"),
        ({"class_path": _DECODER, "init_args": {"words": 1}}, r"TinyDecoder.*arguments"),
        ({"class_path": "synth2_lightning.testing.HugeDecoder"}, "HugeDecoder.*does not exist"),
    ],
)
def test_a_description_that_was_tampered_with_runs_nothing(
    make_run: MakeRun, tmp_path: Path, decoder: Any, message: str
) -> None:
    folder = export_captioner(make_run(), tmp_path / "captioner")
    model = json.loads((folder / "config.json").read_text())["model"]
    model["init_args"]["decoder"] = decoder
    _edit(folder, model=model)
    with pytest.raises(ValueError, match=message):
        load_exported(folder)


def test_other_weights_than_those_it_was_exported_with_are_reported(make_run: MakeRun, tmp_path: Path) -> None:
    folder = export_captioner(make_run(), tmp_path / "captioner")
    _edit(folder, frozen_parts={"image_encoder": "image_encoder:00000000"})
    with pytest.warns(UserWarning, match=r"image_encoder.*image_encoder:00000000"):
        load_exported(folder)
    _edit(folder, codebooks={"image_encoder": "vqgan-512:00000000"}, frozen_parts={})
    with pytest.raises(ValueError, match=r"vqgan-512:00000000.*tiny-16:00000000"):
        load_exported(folder)


def test_a_damaged_export_is_reported(make_run: MakeRun, tmp_path: Path) -> None:
    folder = export_captioner(make_run(), tmp_path / "captioner")
    _edit(folder, format_version=2)
    with pytest.raises(ValueError, match=r"version 2\b.*\b1\b"):
        load_exported(folder)
    _edit(folder, format_version=1)
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"damaged.*config"):
        load_exported(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"describe.*captioner"):
        load_exported(folder)


@pytest.mark.slow
def test_what_the_command_line_trained_on_scenes_loads_in_another_process(tmp_path: Path) -> None:
    from synth2_lightning.cli.trainer import run_trainer

    tiny = Path(__file__).parents[1] / "configs" / "tiny.yaml"
    words = ["fit", "--config", "mixed.yaml", "--config", str(tiny), f"--trainer.default_root_dir={tmp_path}"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cli = run_trainer([*words, "--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}"])
    run = Path(str(cli.trainer.log_dir))
    folder = export_captioner(run, tmp_path / "captioner")
    module = _load(run)
    code = (
        "import sys, torch; from synth2_lightning.types import *\n"
        "from synth2_lightning.export.exported import load_exported\n"
        "module = load_exported(sys.argv[1]); torch.save(module.state_dict(), sys.argv[2])\n"
        "pixels = Pixels(torch.randint(0, 255, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte())\n"
        "print(module.caption(pixels))"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "state.pt")]
    completed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env={**os.environ})
    state = torch.load(tmp_path / "state.pt")
    assert [name for name, weight in module.state_dict().items() if not torch.equal(weight, state[name])] == []
    from synth2_lightning.types import Pixels

    pixels = torch.randint(0, 255, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    expected = module.caption(Pixels(pixels))
    assert completed.stdout.strip() == str(expected)
