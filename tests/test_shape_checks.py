import inspect
from pathlib import Path

import pytest

import synth2_lightning
from synth2_lightning.nn.perceiver import PerceiverResampler

SOURCES = Path(synth2_lightning.__file__).parent


def test_shapes_are_checked_in_every_module_that_annotates_them(request: pytest.FixtureRequest) -> None:
    option = request.config.getoption("--jaxtyping-packages")
    if not option:
        pytest.skip("--jaxtyping-packages= turns the checks off, as for the oldest versions")
    checked = str(option).split(",")
    for path in SOURCES.rglob("*.py"):
        module = ".".join(("synth2_lightning", *path.relative_to(SOURCES).with_suffix("").parts))
        if "from jaxtyping import" in path.read_text("utf-8"):
            assert any(module == name or module.startswith(f"{name}.") for name in checked), module
    assert inspect.unwrap(PerceiverResampler.forward) is not PerceiverResampler.forward
