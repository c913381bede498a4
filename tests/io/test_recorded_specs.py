from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch.optim import AdamW

from synth2_lightning.decoders.language_model import LoraSettings, PretrainedLanguageModel
from synth2_lightning.interfaces import Loadable, Resampler
from synth2_lightning.io.class_specs import build_component
from synth2_lightning.io.recorded_specs import Component, describe
from synth2_lightning.nn.neighborhood import NeighborhoodResampler
from synth2_lightning.nn.perceiver import PerceiverResampler
from synth2_lightning.nn.unmasking import ConfidenceOrder, UnmaskingOrder
from synth2_lightning.scenes.world import Color

PERCEIVER = "synth2_lightning.nn.perceiver.PerceiverResampler"


class Base(Component):
    def __init__(self, path: Path, *sizes: int, factory: Callable[[], object] = dict, **settings: Any) -> None:
        self.path = path


class Derived(Base):
    def __init__(self, *args: Any, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


def test_a_described_component_is_built_again() -> None:
    given = NeighborhoodResampler(PerceiverResampler(3, depth=1, num_heads=1), num_layers=1)
    description = describe(given)
    assert description["init_args"]["resampler"]["class_path"] == PERCEIVER
    built = build_component(description, Resampler)
    assert isinstance(built, NeighborhoodResampler)
    assert (built.num_latents, built.num_layers) == (3, 1)
    assert describe(built) == description
    assert describe(deepcopy(given)) == description


def test_settings_and_dataclass_components_are_built_by_their_hints() -> None:
    model = PretrainedLanguageModel("owner/name", lora=LoraSettings(r=4, target_modules=("q_proj",)))
    assert describe(model)["init_args"]["lora"] == {
        "r": 4, "alpha": 16.0, "dropout": 0.0, "target_modules": ["q_proj"],
    }  # fmt: skip
    assert build_component(describe(model), PretrainedLanguageModel).lora == model.lora
    order = ConfidenceOrder(noise=2.0)
    assert build_component(describe(order), UnmaskingOrder) == order


def test_arguments_of_base_classes_and_defaults_are_recorded_by_name() -> None:
    with pytest.raises(TypeError, match=r"1 arguments without a name"):
        describe(Derived(Path("a/b"), 5))
    assert describe(Derived(Path("a/b"), width=3)) == {
        "class_path": f"{__name__}.Derived",
        "init_args": {"scale": 1.0, "path": "a/b", "width": 3},
    }
    assert describe(Base("x"))["init_args"] == {  # type: ignore[arg-type]
        "path": "x", "factory": {"class_path": "builtins.dict"},
    }  # fmt: skip


def test_values_are_plain() -> None:
    plain = describe({"color": Color.RED, "sizes": (1, 2), "optimizer": partial(AdamW, lr=0.1), "kind": AdamW})
    assert plain == {
        "color": "red",
        "sizes": [1, 2],
        "optimizer": {"class_path": "torch.optim.adamw.AdamW", "init_args": {"lr": 0.1}},
        "kind": {"class_path": "torch.optim.adamw.AdamW"},
    }
    assert type(plain["color"]) is str


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda: None, "function"),
        (partial(AdamW, []), "partial"),
        (object(), "object"),
        ({"inner": [print]}, r"inner\[0\]"),
    ],
)
def test_what_no_other_process_can_build_is_refused(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        describe(value)
    with pytest.raises(TypeError, match=rf"Base that cannot be described: .*{message}"):
        describe(Base(value))  # type: ignore[arg-type]


def test_a_class_of_a_function_is_refused() -> None:
    class Local(Loadable):
        pass

    @dataclass
    class Settings:
        local: Local

    with pytest.raises(TypeError, match=r"Local is defined in a function"):
        describe(Settings(Local()))
