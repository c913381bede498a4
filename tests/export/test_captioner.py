import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import synth2_lightning
from synth2_lightning.cli import main
from synth2_lightning.export.captioner import Captioner, load
from synth2_lightning.export.image_inputs import ImageLike
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch
from synth2_lightning.types import Pixels


def trained_module() -> VisionLanguageModule:
    """Train a captioner that distinguishes bright from dark."""
    torch.manual_seed(0)
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.05)
    for step in range(60):
        optimizer.zero_grad()
        module.training_step(tiny_batch(16, seed=step), step).backward()
        optimizer.step()
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run, as `synth2 fit` writes it."""
    folder = tmp_path_factory.mktemp("run")
    module = trained_module()
    parts = {"image_encoder": "TinyImageTokenizer", "resampler": "TinyResampler", "decoder": "TinyDecoder"}
    settings: dict[str, object] = {n: {"class_path": f"synth2_lightning.testing.{part}"} for n, part in parts.items()}
    settings["_instantiator"] = "lightning.pytorch.cli.instantiate_module"
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": settings, "pytorch-lightning_version": "2.6.6"}
    (folder / "checkpoints").mkdir()
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    return folder


def gray(value: int, size: tuple[int, int] = (12, 9)) -> Image.Image:
    return Image.new("RGB", size, (value, value, value))


def test_files_pillow_arrays_and_tensors_are_captioned_in_order(run: Path, tmp_path: Path) -> None:
    gray(200).save(tmp_path / "bright.png")
    captioner = synth2_lightning.load(run, device="cpu")
    images: list[ImageLike] = [
        str(tmp_path / "bright.png"),
        gray(20),
        tmp_path / "bright.png",
        np.full((9, 12), 20, dtype=np.uint8),
        np.full((9, 12, 3), 200, dtype=np.uint8),
        torch.full((3, 12, 9), 20, dtype=torch.uint8),
        torch.full((1, 12, 9), 200, dtype=torch.uint8),
        np.zeros((9, 12, 4), dtype=np.uint8),  # transparent black is white
    ]
    for batch_size in (1, 3, 16):
        captions = captioner.caption(images, batch_size=batch_size)
        assert [caption.split()[1] for caption in captions] == [
            "bright", "dark", "bright", "dark", "bright", "dark", "bright", "bright",
        ]  # fmt: skip
    assert captioner.caption([]) == []


def test_the_settings_of_decoding_can_be_overridden(run: Path) -> None:
    captioner = load(run, num_beams=2, max_new_tokens=1)
    assert captioner.caption([gray(200)]) == ["a"]
    assert captioner.provenance()["generation"]["num_beams"] == 2
    with pytest.raises(ValueError, match=r"GenerationSettings\.num_beams is 0"):
        load(run, num_beams=0)


def test_a_subclass_answers_in_its_own_way() -> None:
    class UpperCase(VisionLanguageModule):
        def generate(self, visual: torch.Tensor, prompts: Sequence[str] | None = None) -> list[str]:
            return ["LOUD"] * len(visual)

    module = UpperCase(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    assert Captioner(module, "cpu").caption([gray(1)] * 3, batch_size=2) == ["LOUD"] * 3


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (["gone.png"], OSError, r"gone\.png.*FileNotFoundError"),
        ("gone.png", TypeError, r"caption\(\).*\bstr\b.*sequence"),
        (np.zeros((4, 9, 3), np.uint8), TypeError, r"caption\(\).*ndarray.*sequence"),
        (torch.zeros(3, 4, 9, dtype=torch.uint8), TypeError, r"caption\(\).*Tensor.*sequence"),
        ([np.zeros((4, 4))], ValueError, r"number 0.*float64.*\(4, 4\).*uint8"),
        ([torch.zeros(4, 4, 3, dtype=torch.uint8)], ValueError, r"\(4, 4, 3\).*\(1, height, width\)"),
    ],
)
def test_other_inputs_are_refused(images: object, error: type[Exception], message: str) -> None:
    captioner = Captioner(VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder()), "cpu")
    with pytest.raises(error, match=message):
        captioner.caption(images)  # type: ignore[arg-type]


def test_images_with_too_many_pixels_are_refused(tmp_path: Path) -> None:
    gray(1).save(tmp_path / "large.png")
    captioner = Captioner(VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder()), "cpu")
    with pytest.raises(OSError, match=r"12 x 9.*107"):
        captioner.caption([tmp_path / "large.png"], max_pixels=107)


def test_no_batch_and_no_device_are_refused() -> None:
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    with pytest.raises(ValueError, match=r"batch_size.*0"):
        Captioner(module, "cpu").caption([gray(1)], batch_size=0)
    with pytest.raises(ValueError, match="toaster"):
        Captioner(module, "toaster")


def test_checkpoints_of_a_notebook_are_refused(tmp_path: Path) -> None:
    content = {"state_dict": {}, "hyper_parameters": {}, "pytorch-lightning_version": "2.6.6"}
    torch.save(content, tmp_path / "notebook.ckpt")
    with pytest.raises(ValueError, match=r"notebook.* Captioner"):
        load(tmp_path / "notebook.ckpt")


def test_a_run_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["caption", "nowhere", "a.png"])
    assert stop.value.code == 1
    assert re.search("error: .*captioner.*nowhere", capsys.readouterr().err)


def test_a_cpu_computes_in_float32_even_with_bfloat16_instructions(set_cpu: Callable[..., None]) -> None:
    set_cpu(has_bfloat16=True)
    seen: list[torch.dtype] = []

    class Encoder(TinyImageTokenizer):
        def encode_pixels(self, pixels: Pixels) -> Tensor:
            seen.append((torch.ones(1, 1) @ torch.ones(1, 1)).dtype)
            return super().encode_pixels(pixels)

    captioner = Captioner(VisionLanguageModule(Encoder(), TinyResampler(), TinyDecoder()), "cpu")
    captioner.caption([Image.new("RGB", (8, 8))])
    assert seen == [torch.float32]
