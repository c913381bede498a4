import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from synth2_lightning.export.captioner import load

SCRIPT = Path(__file__).parents[2] / "examples" / "caption_onnx.py"


@pytest.mark.slow
def test_captions_without_torch_are_ours(export_tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = export_tiny(onnx=True, prompt="a red")
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "ramp.png")
    Image.new("RGB", (200, 80), "red").save(tmp_path / "red.png")
    Image.new("RGB", (33, 40), (0, 90, 255)).save(tmp_path / "blue.png")
    names = [str(tmp_path / name) for name in ("ramp.png", "red.png", "blue.png")]
    expected = load(folder, "cpu").caption(names)
    command = [sys.executable, str(SCRIPT), str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{name}\t{text}" for name, text in zip(names, expected, strict=True)]
    assert len(set(expected)) > 1
    code = f"import sys; sys.argv = {command[1:]}; exec(open(sys.argv[0]).read()); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
