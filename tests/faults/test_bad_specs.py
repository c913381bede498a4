"""Checkpoints and run folders with invalid descriptions are refused by a message, never built.

``KINDS`` lists them; :mod:`tests.faults.test_class_specs` checks that no code of such descriptions runs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from drivers import TINY_MODEL, VOCABULARY, read_refusal
from torch.distributed.tensor import Shard

from synth2_lightning.demo.run_data import build_data_component
from synth2_lightning.export.captioner import load_module
from synth2_lightning.export.runs import read_data
from synth2_lightning.interfaces import ImageTextSource

PERCEIVER = "synth2_lightning.nn.perceiver.PerceiverResampler"


def load(folder: Path, **changes: Any) -> object:
    description = {"_class_path": "synth2_lightning.modules.captioning.VisionLanguageModule", **TINY_MODEL, **changes}
    content = {"state_dict": {}, "hyper_parameters": description, "global_step": 1}
    torch.save({**content, "pytorch-lightning_version": "2.6.6"}, folder / "bad.ckpt")
    return load_module(folder / "bad.ckpt")


def name_class(folder: Path, class_path: Any) -> object:
    return load(folder, _class_path=class_path)


def perceiver(folder: Path, **arguments: Any) -> object:
    sizes = {"num_latents": 2, "depth": 1, "num_heads": 2, "head_dim": 8, **arguments}
    return load(folder, resampler={"class_path": PERCEIVER, "init_args": sizes})


def new_words(folder: Path, tokenizer: str = VOCABULARY, **config: Any) -> object:
    config = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, **config}
    arguments = {"config": config, "tokenizer": tokenizer}
    words = {"class_path": "synth2_lightning.decoders.language_model.NewLanguageModel", "init_args": arguments}
    prefix = {"class_path": "synth2_lightning.decoders.prefix.PrefixDecoder", "init_args": {"language_model": words}}
    return load(folder, decoder=prefix)


def vqgan(folder: Path, model: Any) -> object:
    return load(
        folder,
        image_encoder={"class_path": "synth2_lightning.encoders.vqgan.VQGANTokenizer", "init_args": {"model": model}},
    )


def doubled() -> Any:
    value: Any = 1
    for _ in range(60):
        value = [value, value]
    return value


def circle() -> Any:
    value: dict[str, Any] = {}
    value["inner"] = value
    return value


KINDS: dict[str, Callable[[Path], object]] = {
    "lists that double sixty times": lambda folder: load(folder, generation=doubled()),
    "a recursive reference": lambda folder: load(folder, generation=circle()),
    "a tensor": lambda folder: load(folder, generation={"num_beams": torch.ones(3)}),
    "an object that torch allows": lambda folder: load(folder, generation=Shard(0)),
    "bytes": lambda folder: load(folder, generation={"num_beams": b"3"}),
    "a complex number": lambda folder: load(folder, generation={"num_beams": 3j}),
    "a key that is no text": lambda folder: load(folder, generation={(1, 2): 3}),
    "a number of 5,000 digits": lambda folder: load(folder, generation={"num_beams": 10**5000}),
    "a size that exceeds memory": lambda folder: perceiver(folder, num_latents=10**15),
    "a size that no tensor has": lambda folder: perceiver(folder, num_latents=10**30),
    "a size below zero": lambda folder: perceiver(folder, num_latents=-5),
    "a size that is no number": lambda folder: perceiver(folder, head_dim=float("nan")),
    "a list for arguments": lambda folder: load(folder, resampler={"class_path": PERCEIVER, "init_args": [1]}),
    "a number for a class": lambda folder: name_class(folder, 3),
    "a list for a class": lambda folder: name_class(folder, ["torch.nn.Linear"]),
    "no name of a class": lambda folder: name_class(folder, "."),
    "a package for a class": lambda folder: name_class(folder, "torch"),
    "a module for a class": lambda folder: name_class(folder, "torch.nn"),
    "a method for a class": lambda folder: name_class(
        folder, "synth2_lightning.modules.captioning.VisionLanguageModule.load_from_checkpoint"
    ),
    "a function for a class": lambda folder: name_class(folder, "torch.load"),
    "a program for a class": lambda folder: name_class(folder, "torch.utils.model_dump.__main__.Main"),
    "a class of another kind": lambda folder: name_class(folder, "torch.nn.Linear"),
    "an abstract class": lambda folder: load(
        folder, image_encoder={"class_path": "synth2_lightning.interfaces.ImageEncoder"}
    ),
    "a class under dict_kwargs": lambda folder: load(
        folder, decoder={**TINY_MODEL["decoder"], "dict_kwargs": {"class_path": "os.system"}}
    ),
    "a kind of model that is not there": lambda folder: new_words(folder, model_type="bad"),
    "a list of kinds of models": lambda folder: new_words(folder, model_type=["gpt2"]),
    "a width in words": lambda folder: new_words(folder, n_embd="wide"),
    "a width that exceeds memory": lambda folder: new_words(folder, n_embd=10**12),
    "a tokenizer of a user who is not there": lambda folder: new_words(folder, "~nobody-of-this-name/words"),
    "a place with a zero byte": lambda folder: vqgan(folder, "a\0b"),
    "a place that is a number": lambda folder: vqgan(folder, 5),
    "a place that holds no model": lambda folder: vqgan(folder, "package://synth2_lightning"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_invalid_descriptions_are_refused_with_a_message(kind: str, tmp_path: Path) -> None:
    read_refusal(KINDS[kind], tmp_path)


@pytest.mark.parametrize("given", [[1], "text", 3, {"shards": ["a", "b"]}, {"val": {"class_path": [1]}}])
def test_arguments_of_odd_types_in_a_run_file_are_no_traceback(given: Any, tmp_path: Path) -> None:
    data = {"class_path": "synth2_lightning.datamodules.real.RealDataModule", "init_args": given}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    record = read_data(tmp_path)
    assert record is not None
    assert record.components[0][1] == "RealDataModule"
    assert build_data_component(tmp_path, ImageTextSource) is None
