"""Run folder of an untrained captioner with the components of the Scenes captioner, as `synth2 fit` writes it."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from synth2_lightning.decoders.language_model import NewLanguageModel
from synth2_lightning.decoders.prefix import PrefixDecoder
from synth2_lightning.encoders.vqgan import VQGANTokenizer
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.nn.neighborhood import NeighborhoodResampler
from synth2_lightning.nn.perceiver import PerceiverResampler
from synth2_lightning.types import GenerationSettings

GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
TOKENIZER, VOCABULARY = (f"package://synth2_lightning/scenes/{name}" for name in ("tokenizer", "vocabulary"))
PERCEIVER: dict[str, Any] = {"num_latents": 4, "depth": 2, "num_heads": 2, "num_positions": 64}


def describe(part: type, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"{part.__module__}.{part.__qualname__}", "init_args": arguments}


def make_module() -> VisionLanguageModule:
    torch.manual_seed(0)
    decoder = PrefixDecoder(NewLanguageModel(GPT2, VOCABULARY))
    resampler = NeighborhoodResampler(PerceiverResampler(**PERCEIVER), num_layers=1)
    module = VisionLanguageModule(VQGANTokenizer(TOKENIZER), resampler, decoder)
    module.configure_model()
    for parameter in (*module.resampler.parameters(), *module.decoder.parameters()):
        if isinstance(parameter, nn.Parameter) and parameter.ndim > 1:
            parameter.data.mul_(3)  # the attention of a new model is nearly uniform
    decoder.lm.get_input_embeddings().weight.data[:4] = 0  # special tokens are not generated
    module.generation = GenerationSettings(max_new_tokens=6)
    return module.eval()


@pytest.fixture(scope="session")
def module() -> VisionLanguageModule:
    return make_module()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "version_0"
    (folder / "checkpoints").mkdir(parents=True)
    language_model = describe(NewLanguageModel, config=GPT2, tokenizer=VOCABULARY)
    settings = {
        "image_encoder": describe(VQGANTokenizer, model=TOKENIZER),
        "resampler": describe(NeighborhoodResampler, num_layers=1, resampler=describe(PerceiverResampler, **PERCEIVER)),
        "decoder": describe(PrefixDecoder, language_model=language_model),
        "generation": {"max_new_tokens": 6},
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
    }
    checkpoint = {
        "state_dict": make_module().state_dict(),
        "hyper_parameters": settings,
        "pytorch-lightning_version": "2.6.6",
    }
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": describe_data()}))
    return folder


def describe_data() -> dict[str, Any]:
    from synth2_lightning.datamodules.mixed import MixedDataModule
    from synth2_lightning.datamodules.real import RealDataModule
    from synth2_lightning.datamodules.synthetic import SyntheticDataModule
    from synth2_lightning.scenes.source import ScenesSource

    shards = "package://synth2_lightning/scenes/shards"
    return describe(
        MixedDataModule,
        real=describe(
            RealDataModule,
            train=describe(ScenesSource, split="train", num_images=8),
            val=describe(ScenesSource, split="val", num_images=8),
        ),
        synthetic=describe(SyntheticDataModule, shards=shards, limit=300, keep_fraction=0.5),
    )
