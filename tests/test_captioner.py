from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import synth2_lightning
from synth2_lightning.captioner import Captioner, Picture, load_captioner
from synth2_lightning.cli import main
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch
from synth2_lightning.types import Pixels


def trained_module() -> VisionLanguageModule:
    """One that knows bright from dark."""
    torch.manual_seed(0)
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler, TinyDecoder())
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.05)
    for step in range(60):
        optimizer.zero_grad()
        module.training_step(tiny_batch(16, seed=step), step).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, as `synth2 fit` leaves it."""
    folder = tmp_path_factory.mktemp("run")
    module = trained_module()
    parts = {"image_encoder": "TinyImageTokenizer", "resampler": "TinyResampler", "decoder": "TinyDecoder"}
    settings: dict[str, object] = {n: {"class_path": f"synth2_lightning.testing.{part}"} for n, part in parts.items()}
    settings["_instantiator"] = "lightning.pytorch.cli.instantiate_module"
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": settings, "pytorch-lightning_version": "2.6.6"}
    (folder / "checkpoints").mkdir()
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    return folder


def grey(value: int, size: tuple[int, int] = (12, 9)) -> Image.Image:
    return Image.new("RGB", size, (value, value, value))


def test_files_pillow_arrays_and_tensors_are_captioned_in_order(run: Path, tmp_path: Path) -> None:
    grey(200).save(tmp_path / "bright.png")
    captioner = synth2_lightning.load(run, device="cpu")
    images: list[Picture] = [
        str(tmp_path / "bright.png"),
        grey(20),
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
    captioner = load_captioner(run, num_beams=2, max_new_tokens=1)
    assert captioner.caption([grey(200)]) == ["a"]
    assert captioner.provenance()["generation"]["num_beams"] == 2
    with pytest.raises(ValueError, match=r"GenerationSettings\.num_beams is 0"):
        load_captioner(run, num_beams=0)


def test_a_subclass_answers_in_its_own_way() -> None:
    class Loud(VisionLanguageModule):
        def respond(self, visual: torch.Tensor, batch: object) -> tuple[str, ...]:
            return ("LOUD",) * len(visual)

    module = Loud(TinyImageTokenizer(), TinyResampler, TinyDecoder())
    assert Captioner(module, "cpu").caption([grey(1)] * 3, batch_size=2) == ["LOUD"] * 3


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (["gone.png"], OSError, r"The picture gone\.png cannot be read: FileNotFoundError"),
        ("gone.png", TypeError, r"caption\(\) got one str; expected a sequence, such as \[picture\]"),
        ([np.zeros((4, 4))], ValueError, r"number 0 is of float64 and shape \(4, 4\); expected uint8"),
        ([torch.zeros(4, 4, 3, dtype=torch.uint8)], ValueError, r"shape \(4, 4, 3\); .* \(1 or 3, height, width\)"),
    ],
)
def test_what_is_no_picture_is_refused(images: object, error: type[Exception], message: str) -> None:
    captioner = Captioner(VisionLanguageModule(TinyImageTokenizer(), TinyResampler, TinyDecoder()), "cpu")
    with pytest.raises(error, match=message):
        captioner.caption(images)  # type: ignore[arg-type]


def test_pictures_with_too_many_pixels_are_refused(tmp_path: Path) -> None:
    grey(1).save(tmp_path / "large.png")
    captioner = Captioner(VisionLanguageModule(TinyImageTokenizer(), TinyResampler, TinyDecoder()), "cpu")
    with pytest.raises(OSError, match="12 x 9 pixels, and more than 107 are refused"):
        captioner.caption([tmp_path / "large.png"], max_pixels=107)


def test_no_batch_and_no_device_are_refused() -> None:
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler, TinyDecoder())
    with pytest.raises(ValueError, match="batch_size is 0; expected 1 or more"):
        Captioner(module, "cpu").caption([grey(1)], batch_size=0)
    with pytest.raises(ValueError, match="The device 'toaster' cannot be used here"):
        Captioner(module, "toaster")


def test_checkpoints_of_a_notebook_are_refused_with_the_way_out(tmp_path: Path) -> None:
    content = {"state_dict": {}, "hyper_parameters": {}, "pytorch-lightning_version": "2.6.6"}
    torch.save(content, tmp_path / "notebook.ckpt")
    with pytest.raises(ValueError, match=r"does not say how .*parts are made.* Captioner"):
        load_captioner(tmp_path / "notebook.ckpt")


def test_a_run_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["caption", "a.png", "--checkpoint", "nowhere"])
    assert stop.value.code == 1
    assert "error: The trained captioner is not at 'nowhere'" in capsys.readouterr().err


def test_a_processor_computes_in_float32_even_if_it_knows_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": True})
    seen: list[torch.dtype] = []

    class Eye(TinyImageTokenizer):
        def encode_pixels(self, pixels: Pixels) -> Tensor:
            seen.append((torch.ones(1, 1) @ torch.ones(1, 1)).dtype)
            return super().encode_pixels(pixels)

    captioner = Captioner(VisionLanguageModule(Eye(), TinyResampler, TinyDecoder()), "cpu")
    captioner.caption([Image.new("RGB", (8, 8))])
    assert seen == [torch.float32]
