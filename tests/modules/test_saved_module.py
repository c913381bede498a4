import pytest

from synth2_lightning.compat.lightning import CLASS_PATH_KEY
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.modules.saved_module import build_module


def test_a_checkpoint_of_another_module_is_named() -> None:
    content = {"hyper_parameters": {CLASS_PATH_KEY: "synth2_lightning.modules.muse.MuseModule"}}
    with pytest.raises(ValueError, match=r"runs/version_1/last\.ckpt .*MuseModule'; expected.*VisionLanguageModule"):
        build_module(VisionLanguageModule, content, "runs/version_1/last.ckpt", {})
