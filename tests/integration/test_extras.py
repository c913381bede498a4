import subprocess
import sys
from pathlib import Path

import pytest

from synth2_lightning.cli import main

EXTRAS = (
    *("accelerate", "datasketch", "gguf", "gradio", "onnxruntime", "onnxscript", "openai", "peft", "py3langid", "ray"),
    *("s3fs", "sklearn", "vector_quantize_pytorch"),
)
"""Modules that only extras install; matplotlib comes with pycocoevalcap, jinja2 with torch."""
_WITHOUT = """
import sys
for name in {names}:
    sys.modules[name] = None  # importing it is an error, as if it were not installed
from synth2_lightning.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_the_first_command_of_the_readme_needs_no_extra(tmp_path: Path) -> None:
    words = ("fit", "--config", "mixed.yaml", "--config", "overlays/trainer/debug.yaml", "--trainer.max_steps=2")
    command = [sys.executable, "-c", _WITHOUT.format(names=EXTRAS), *words]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert list(tmp_path.rglob("protocol.json"))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit) as stop:
        main(["demo", "."])
    assert stop.value.code == 1
    assert 'pip install "synth2-lightning[demo]"' in " ".join(capsys.readouterr().err.split())
