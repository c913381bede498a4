"""Fixtures of all tests: no network, fixed seeds, one thread, and small language models with random weights."""

import gc
import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
CHAT_TEMPLATE = (
    "{% for message in messages %}<s> {{ message['role'] }} : {{ message['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<s> assistant : {% endif %}"
)
SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "max_position_embeddings": 256}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "llama": {"model_type": "llama", "intermediate_size": 48, "num_key_value_heads": 2, **SIZES},
    "gemma2": {"model_type": "gemma2", "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8, **SIZES},
}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    gc.disable()  # imports allocate many objects and free hardly any of them
    collected = yield
    gc.freeze()  # otherwise each full garbage collection visits all imported modules
    gc.enable()
    return collected


def pytest_unconfigure() -> None:
    gc.unfreeze()  # some libraries report objects that remain when Python ends


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    import torch

    # Two test processes share two cores, so more threads would slow both.
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _scripts_import_their_neighbors(monkeypatch: pytest.MonkeyPatch) -> None:
    # `main()` sets it for the processes that it starts; scripts of later tests import modules of their own folder.
    monkeypatch.setenv("PYTHONSAFEPATH", "")


@pytest.fixture
def graph_counts() -> Iterator[dict[str, int]]:
    """Counts of ``torch.compile``'s traces, without kernels and without shape checks, which it cannot trace."""
    import jaxtyping
    import torch
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    jaxtyping.config.update("jaxtyping_disable", True)
    with torch.compiler.set_stance("default", force_backend="eager"):
        yield counters["stats"]
    jaxtyping.config.update("jaxtyping_disable", False)
    assert not counters["graph_break"]


@pytest.fixture(autouse=True)
def _sigterm_is_given_back() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def set_cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets whether the processor has bfloat16 instructions, on a machine without a GPU."""

    def set(has_bfloat16: bool) -> None:
        import torch

        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr("synth2_lightning.io.precision.has_bfloat16_instructions", lambda: has_bfloat16)

    return set


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set the cache of downloaded files and of indexes to an empty folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SYNTH2_CACHE", str(folder))
    return folder


@pytest.fixture
def save_model(tmp_path: Path) -> Callable[[str, str | None], str]:
    """Return a function that saves a new model of a kind, with or without a chat template, and returns its folder."""

    def save(kind: str, chat_template: str | None = CHAT_TEMPLATE) -> str:
        import torch
        from transformers import AutoModelForCausalLM

        from synth2_lightning.io.huggingface import NewNetwork

        torch.manual_seed(0)
        plan = NewNetwork(CONFIGS[kind], "package://synth2_lightning/scenes/vocabulary", "conftest")
        network = AutoModelForCausalLM.from_config(plan.config)
        for parameter in network.parameters():
            parameter.data.mul_(3.0)  # logits of a new model are nearly equal, so that rounding would decide
        network.save_pretrained(tmp_path / kind)
        plan.tokenizer.chat_template = chat_template
        plan.tokenizer.save_pretrained(tmp_path / kind)
        return str(tmp_path / kind)

    return save


@pytest.fixture
def write_coco() -> Callable[[Path, str, range], None]:
    """Return a function that writes a COCO captions file, and one image of noise per id into ``images/``."""

    def write(folder: Path, annotations: str, ids: range) -> None:
        import json

        import numpy as np
        from PIL import Image

        (folder / "images").mkdir(exist_ok=True)
        generator = np.random.default_rng(0)
        for number in ids:
            pixels = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{number}.jpg")
        content = {
            "images": [{"id": number, "file_name": f"{number}.jpg"} for number in ids],
            "annotations": [
                {"image_id": number, "caption": caption}
                for number in ids
                for caption in ("a small red circle", "a large blue square")
            ],
        }
        (folder / annotations).write_text(json.dumps(content), "utf-8")

    return write


@pytest.fixture(scope="module")
def export_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that exports a captioner of Scenes with random weights, and returns the folder."""
    import jaxtyping
    import torch

    from synth2_lightning.export.exported import export_captioner
    from synth2_lightning.io.class_specs import build_component
    from synth2_lightning.modules.captioning import VisionLanguageModule

    def export(
        decoder: str = "prefix.PrefixDecoder",
        module: str = "captioning.VisionLanguageModule",
        onnx: bool = False,
        **init_args: Any,
    ) -> Path:
        torch.manual_seed(0)
        config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
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
                        "init_args": {"config": config, "tokenizer": "package://synth2_lightning/scenes/vocabulary"},
                    },
                    **init_args,
                },
            },
            "generation": {"max_new_tokens": 8, "no_repeat_ngram_size": 0 if onnx else 1},
        }
        class_path = f"synth2_lightning.modules.{module}"
        captioner = build_component({"class_path": class_path, "init_args": arguments}, VisionLanguageModule)
        captioner.configure_model()
        torch.manual_seed(0)  # earlier random numbers depend on what is cached
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
        jaxtyping.config.update("jaxtyping_disable", onnx)  # torch.export cannot trace shape checks
        export_captioner(folder / "model.ckpt", folder / "captioner", onnx=onnx)
        jaxtyping.config.update("jaxtyping_disable", False)
        return folder / "captioner"

    return export


@pytest.fixture
def fill_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that lets the next atomic write of a file, given by its name, fail as on a full disk."""
    if not Path("/dev/full").exists():
        pytest.skip("Linux has the device that is always full")
    touch, names = Path.touch, set[str]()

    def touch_or_link(path: Path, *args: Any, **kwargs: Any) -> None:
        if path.name in names:
            names.remove(path.name)
            path.symlink_to("/dev/full")
        else:
            touch(path, *args, **kwargs)

    monkeypatch.setattr(Path, "touch", touch_or_link)
    return lambda name: names.add(f"{name}.tmp")
