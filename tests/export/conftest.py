from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}


@pytest.fixture(scope="module")
def export_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Export a captioner of Scenes with random weights and a language model of transformers; give the folder."""
    import torch

    from synth2_lightning.export.exported import export_captioner
    from synth2_lightning.io.class_specs import build_component
    from synth2_lightning.modules.captioning import VisionLanguageModule

    def export(
        decoder: str = "prefix.PrefixDecoder", module: str = "captioning.VisionLanguageModule", **init_args: Any
    ) -> Path:
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("export")
        arguments = {
            "image_encoder": {
                "class_path": "synth2_lightning.encoders.vqgan.VQGANTokenizer",
                "init_args": {"model": "package://synth2_lightning/scenes/tokenizer"},
            },
            "resampler": {
                "class_path": "synth2_lightning.nn.perceiver.PerceiverResampler",
                "init_args": {"num_latents": 4, "depth": 1, "num_heads": 2, "head_dim": 8, "num_positions": 64},
            },
            "decoder": {
                "class_path": f"synth2_lightning.decoders.{decoder}",
                "init_args": {
                    "language_model": {
                        "class_path": "synth2_lightning.decoders.language_model.NewLanguageModel",
                        "init_args": {"config": GPT2, "tokenizer": "package://synth2_lightning/scenes/vocabulary"},
                    },
                    **init_args,
                },
            },
            "generation": {"max_new_tokens": 8, "no_repeat_ngram_size": 1},
        }
        class_path = f"synth2_lightning.modules.{module}"
        captioner = build_component({"class_path": class_path, "init_args": arguments}, VisionLanguageModule)
        captioner.configure_model()
        for name, weight in captioner.named_parameters():  # large weights, so that captions depend on their images
            if weight.requires_grad and (weight.ndim > 1 or len(weight) == 1):  # not biases and gains, but gates
                torch.nn.init.normal_(weight)
            elif name == "decoder.norm.weight":
                torch.nn.init.ones_(weight)
        checkpoint = {
            "state_dict": captioner.state_dict(),
            "hyper_parameters": {"_class_path": class_path, **arguments},
            "global_step": 2,
        }
        torch.save(checkpoint, folder / "model.ckpt")
        return export_captioner(folder / "model.ckpt", folder / "captioner")

    return export
