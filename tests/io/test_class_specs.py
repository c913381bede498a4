from dataclasses import dataclass
from typing import Any

import pytest
from jsonargparse import Namespace

from synth2_lightning.decoders.language_model import LoraSettings, PretrainedLanguageModel
from synth2_lightning.encoders.vqgan import VQGANTokenizer
from synth2_lightning.interfaces import Resampler
from synth2_lightning.io.class_specs import build_component
from synth2_lightning.io.trusted_packages import check_no_functions, check_packages, list_names, trusting
from synth2_lightning.nn.neighborhood import NeighborhoodResampler
from synth2_lightning.nn.perceiver import PerceiverResampler


def test_a_component_inside_a_component_is_built_as_the_command_line_does() -> None:
    inner = {
        "class_path": "synth2_lightning.nn.perceiver.PerceiverResampler",
        "init_args": {"num_latents": 3, "depth": 1, "num_heads": 1, "head_dim": 4},
    }
    outer = {
        "class_path": "synth2_lightning.nn.neighborhood.NeighborhoodResampler",
        "init_args": {"resampler": inner, "num_layers": 1},
    }
    resampler = build_component(outer, Resampler)
    assert isinstance(resampler, NeighborhoodResampler)
    assert isinstance(resampler.resampler, PerceiverResampler)
    assert resampler.num_latents == 3


def test_dataclasses_and_tuples_are_built_by_signatures() -> None:
    description = {
        "class_path": "synth2_lightning.decoders.language_model.PretrainedLanguageModel",
        "init_args": {"model": "owner/name", "lora": {"r": 4, "target_modules": ["q_proj", "v_proj"]}},
    }
    model = build_component(description, PretrainedLanguageModel)
    assert model.lora == LoraSettings(r=4, target_modules=("q_proj", "v_proj"))
    description = {
        "class_path": "synth2_lightning.encoders.vqgan.VQGANTokenizer",
        "init_args": {"model": "package://synth2_lightning/scenes/tokenizer", "pixel_range": [0.0, 1.0]},
    }
    assert isinstance(build_component(description, VQGANTokenizer), VQGANTokenizer)


def test_class_specs_stay_plain_where_plain_values_are_expected() -> None:
    config = {"class_path": "synth2_lightning.testing.TinyDecoder"}
    assert build_component(config, dict[str, Any]) == config
    assert build_component("synth2_lightning.testing.TinyDecoder", str) == "synth2_lightning.testing.TinyDecoder"
    assert build_component(None, PerceiverResampler | None) is None


def test_packages_of_classes_and_files_are_found_at_any_depth() -> None:
    description = {
        "a": [{"class_path": "one.A"}, "package://two.inner/b"],
        "b": {"c": ["package://three"], "d": "four.x"},
    }
    assert {package for _, package in list_names(description)} == {"one", "two", "three"}
    with trusting(["one", "two", "three"]):
        check_packages(description)
    with (
        trusting(["one"]),
        pytest.raises(ValueError, match=r"'package://three', 'package://two.inner/b'.*--trust three --trust two"),
    ):
        check_packages(description)


@dataclass
class _Settings:
    count: int


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\bmodel\b.*_Settings.*'count'"):
        build_component({"size": 1}, _Settings)


def test_functions_are_allowed_where_the_user_typed_them() -> None:
    named = Namespace({"class_path": "builtins.len"})
    for settings in ({"batch_size_fn": len}, {"lr_scheduler": named}):
        with pytest.raises(ValueError, match=r"'builtins\.len'.*function.*--trust"):
            check_no_functions(settings)
        check_no_functions(settings, ["builtins.len"])


@pytest.mark.parametrize("values", [[1], [1, 2, 3]])
def test_tuples_of_another_length_are_refused(values: list[int]) -> None:
    assert build_component([1, 2], tuple[int, int]) == (1, 2)
    with pytest.raises(ValueError, match=r"betas.*\[1.*2 values"):
        build_component(values, tuple[int, int], "betas")
