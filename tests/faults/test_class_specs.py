"""Class specs of hostile checkpoints, exports, run folders and run files: nothing that they name is run or imported.

Every test records audit events of the interpreter, and fails if a process is started, a file is removed, or the marker
module is imported.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synth2_lightning.cli import main
from synth2_lightning.demo.run_data import build_data_component
from synth2_lightning.export.captioner import load_module
from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.io.locations import resolve
from synth2_lightning.modules.captioning import VisionLanguageModule

HYPER_PARAMETERS: dict[str, Any] = {
    "_instantiator": "lightning.pytorch.cli.instantiate_module",
    "_class_path": "synth2_lightning.modules.captioning.VisionLanguageModule",
    "image_encoder": {
        "class_path": "synth2_lightning.encoders.vqgan.VQGANTokenizer",
        "init_args": {"model": "package://synth2_lightning/scenes/tokenizer", "pixel_range": [-1.0, 1.0]},
    },
    "resampler": {
        "class_path": "synth2_lightning.nn.perceiver.PerceiverResampler",
        "init_args": {"num_latents": 2, "depth": 1, "num_heads": 2, "head_dim": 8},
    },
    "decoder": {
        "class_path": "synth2_lightning.decoders.prefix.PrefixDecoder",
        "init_args": {
            "language_model": {
                "class_path": "synth2_lightning.decoders.language_model.NewLanguageModel",
                "init_args": {
                    "config": {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2},
                    "tokenizer": "package://synth2_lightning/scenes/vocabulary",
                },
            }
        },
    },
    "generation": {"num_beams": 1, "max_new_tokens": 4},
    "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}},
    "lr_scheduler": {
        "class_path": "synth2_lightning.modules.schedules.WarmupCosineSchedule",
        "init_args": {"warmup_steps": 1},
    },
}
UNDER_ANY = ("decoder", "init_args", "language_model", "init_args", "config", "output_attentions")
HOSTILE: dict[str, dict[str, Any]] = {
    "os.system": {"command": "touch RAN"},
    "posix.system": {"command": "touch RAN"},
    "subprocess.Popen": {"args": "touch RAN", "shell": True},
    "subprocess.run": {"args": "touch RAN", "shell": True},
    "logging.FileHandler": {"filename": "RAN"},
    "builtins.eval": {"source": "open('RAN', 'w')"},
    "builtins.open": {"file": "RAN", "mode": "w"},
    "functools.partial": {"func": "os.system"},
    "pathlib.Path.unlink": {"self": "KEPT"},
    "pathlib.Path.touch": {"self": "RAN"},
    "synth2_lightning.cli.errors.os.system": {"command": "touch RAN"},
    "synth2_lightning.io.paths.Path": {},
    "torch.os.system": {"command": "touch RAN"},
    "lightning.pytorch.cli.instantiate_module": {"class_type": "os.system", "config": {}},
    "transformers.utils.import_utils.subprocess.run": {"args": "touch RAN", "shell": True},
    "marker_of_an_import.Anything": {},
    "marker_of_an_import": {},
}
_PROCESS_EVENTS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork")


class Watch:
    """Records forbidden audit events while it is armed, because audit hooks cannot be removed."""

    def __init__(self) -> None:
        self.is_armed = False
        self.seen: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        is_own_lock = event == "os.remove" and str(arguments[0]).endswith(".lock")  # the run's own lock
        if self.is_armed and event in _PROCESS_EVENTS and not is_own_lock:
            self.seen.append(f"{event} {arguments!r:.200}")


WATCH = Watch()


@pytest.fixture(scope="module")
def _warm() -> None:
    """Import all that parsing imports, because some libraries start a process when they are imported."""
    with pytest.raises(SystemExit):
        main(["fit", "--config", "real.yaml", "--print_config"])


@pytest.fixture
def _watched(_warm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "marker_of_an_import.py").write_text("open('RAN', 'w')\nclass Anything: ...\n")
    (tmp_path / "KEPT").write_text("kept")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    WATCH.seen.clear()
    yield
    WATCH.is_armed = False
    check_that_nothing_ran(tmp_path)


def check_that_nothing_ran(folder: Path) -> None:
    assert WATCH.seen == []
    assert not (folder / "RAN").exists()
    assert (folder / "KEPT").exists()
    assert "marker_of_an_import" not in sys.modules


def watch(run: Callable[[], object]) -> None:
    """Run a function and record audit events; the function may raise an error with a message for users."""
    WATCH.is_armed = True
    try:
        run()
    except (ValueError, OSError):
        pass
    finally:
        WATCH.is_armed = False


def list_places(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield every place of a description: values, arguments to add, and class paths."""
    yield place
    if isinstance(node, dict):
        for name, value in node.items():
            yield from list_places(value, (*place, name))
        yield (*place, "added")
    elif isinstance(node, list):
        for row, value in enumerate(node):
            yield from list_places(value, (*place, row))


def put(node: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    inner = copy.get(place[0]) if isinstance(copy, dict) else copy[place[0]]
    copy[place[0]] = put(inner, place[1:], value)
    return copy


def spec(name: str) -> dict[str, Any]:
    return {"class_path": name, "init_args": HOSTILE[name]}


def hostile_values() -> st.SearchStrategy[Any]:
    """Return a strategy of hostile specs in each form that parsers accept, and nested in harmless ones."""
    names = st.sampled_from(sorted(HOSTILE))
    plain = st.one_of(
        names,
        names.map(spec),
        names.map(lambda name: json.dumps(spec(name))),
        names.map(lambda name: {"class_path": name, "dict_kwargs": HOSTILE[name]}),
        names.map(lambda name: {"_instantiator": name, "_class_path": name, **HOSTILE[name]}),
        names.map(lambda name: f"package://{name}/py.typed"),
    )
    return st.recursive(
        plain,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=2),
            st.dictionaries(st.sampled_from(["class_path", "init_args", "problem_type", "config"]), inner, min_size=1),
            inner.map(lambda value: {"class_path": "synth2_lightning.testing.TinyDecoder", "init_args": {"x": value}}),
            inner.map(lambda value: {"class_path": "torch.nn.Linear", "init_args": {"in_features": value}}),
        ),
        max_leaves=3,
    )


def save_checkpoint(folder: Path, description: Any) -> Path:
    content = {"state_dict": {}, "hyper_parameters": description, "global_step": 1}
    torch.save({**content, "pytorch-lightning_version": "2.6.6"}, folder / "hostile.ckpt")
    return folder / "hostile.ckpt"


PLACES = sorted(list_places(HYPER_PARAMETERS), key=repr)


@pytest.mark.usefixtures("_watched")
@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_spec_under_any_is_data_or_refused(tmp_path: Path, name: str) -> None:
    checkpoint = save_checkpoint(tmp_path, put(HYPER_PARAMETERS, UNDER_ANY, spec(name)))
    watch(lambda: load_module(checkpoint))
    watch(lambda: VisionLanguageModule.load_from_checkpoint(checkpoint))


@pytest.mark.usefixtures("_watched")
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=hostile_values())
def test_no_place_of_a_checkpoint_runs_what_it_names(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    checkpoint = save_checkpoint(tmp_path, put(HYPER_PARAMETERS, place, value))
    watch(lambda: load_module(checkpoint))
    check_that_nothing_ran(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("_watched")
@settings(max_examples=700, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=hostile_values())
def test_no_place_of_700_checkpoints_runs_what_it_names(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    checkpoint = save_checkpoint(tmp_path, put(HYPER_PARAMETERS, place, value))
    watch(lambda: load_module(checkpoint))
    check_that_nothing_ran(tmp_path)


@pytest.mark.usefixtures("_watched")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=hostile_values(), place=st.sampled_from([(), ("class_path",), ("init_args", "val")]))
def test_no_run_folder_runs_what_its_config_names(tmp_path: Path, value: Any, place: tuple[Any, ...]) -> None:
    source = {"class_path": "synth2_lightning.scenes.source.ScenesSource", "init_args": {"split": "val"}}
    data = {"class_path": "synth2_lightning.datamodules.real.RealDataModule", "init_args": {"val": source}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": put(data, place, value)}))
    watch(partial(build_data_component, tmp_path, ImageTextSource, ".val"))
    check_that_nothing_ran(tmp_path)


def run_file(**changes: Any) -> dict[str, Any]:
    """Return a run file of a tiny captioner, with a spec under ``Any``, and other changes."""
    arguments = {name: value for name, value in HYPER_PARAMETERS.items() if name[0] != "_"}
    if (under_any := changes.pop("under_any", None)) is not None:
        arguments = put(arguments, UNDER_ANY, under_any)
    return {"model": {"class_path": HYPER_PARAMETERS["_class_path"], "init_args": arguments}, **changes}


def with_optimizer(optimizer: Any) -> Any:
    return put(run_file()["model"], ("init_args", "optimizer"), optimizer)


UNPICKLE = {"f": "hostile.ckpt", "weights_only": False}
RUN_FILES: dict[str, dict[str, Any]] = {
    "a callback": run_file(trainer={"callbacks": ["marker_of_an_import.Anything"]}),
    "a callback by class path": run_file(trainer={"callbacks": [spec("marker_of_an_import.Anything")]}),
    "a logger that is a process": run_file(trainer={"logger": [spec("subprocess.Popen")]}),
    "a model": run_file(model=spec("marker_of_an_import.Anything")),
    "data": run_file(data="marker_of_an_import.Anything"),
    "an optimizer": run_file(model=put(run_file()["model"], ("init_args", "optimizer"), spec("os.system"))),
    "a module through a trusted one": run_file(trainer={"profiler": "torch.os.system"}),
    "a function that unpickles": run_file(model=with_optimizer({"class_path": "torch.load", "init_args": UNPICKLE})),
    "a function that imports a file": run_file(
        model=with_optimizer({"class_path": "torch.hub.load", "init_args": {"repo_or_dir": ".", "model": "x"}})
    ),
    "a function that compiles": run_file(
        model=with_optimizer(
            {"class_path": "torch.utils.cpp_extension.load_inline", "init_args": {"name": "x", "cpp_sources": "int x;"}}
        )
    ),
    "a function as a hook": run_file(
        trainer={
            "callbacks": [
                {
                    "class_path": "lightning.pytorch.callbacks.LambdaCallback",
                    "init_args": {"on_fit_start": "torch.load"},
                }
            ]
        }
    ),
    "a method of a class": run_file(
        model={
            "class_path": f"{HYPER_PARAMETERS['_class_path']}.load_from_checkpoint",
            "init_args": {"checkpoint_path": "hostile.ckpt", "weights_only": False},
        }
    ),
    "checkpoints that may hold code": run_file(weights_only=False, ckpt_path="hostile.ckpt"),
}


class Code:
    """Object that runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch RAN",)


@pytest.mark.usefixtures("_watched")
@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_no_run_file_has_a_checkpoint_unpickled(command: str, tmp_path: Path) -> None:
    torch.save({"code": Code(), "state_dict": {}, "pytorch-lightning_version": "2.6.6"}, tmp_path / "hostile.ckpt")
    (tmp_path / "hostile.yaml").write_text(yaml.safe_dump(run_file(weights_only=False, ckpt_path="hostile.ckpt")))
    with pytest.raises(SystemExit) as stop:
        watch(lambda: main([command, "--config", "real.yaml", "--config", "hostile.yaml"]))
    assert stop.value.code == 1


@pytest.mark.usefixtures("_watched")
@pytest.mark.parametrize("kind", RUN_FILES)
def test_a_run_file_that_names_what_is_not_trusted_is_refused(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hostile.yaml").write_text(yaml.safe_dump(RUN_FILES[kind]))
    torch.save({"code": Code()}, tmp_path / "hostile.ckpt")
    with pytest.raises(SystemExit) as stop:
        watch(lambda: main(["fit", "--config", "real.yaml", "--config", "hostile.yaml"]))
    assert stop.value.code in (1, 2)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.usefixtures("_watched")
@pytest.mark.parametrize("name", ["subprocess.Popen", "torch.nn.Linear", "marker_of_an_import.Anything"])
def test_class_specs_under_any_in_a_run_file_are_data(tmp_path: Path, name: str) -> None:
    under_any = {"class_path": name, "init_args": {"args": "touch RAN", "shell": True}}
    (tmp_path / "hostile.yaml").write_text(yaml.safe_dump(run_file(under_any=under_any)))
    quick = ["--trainer.max_steps=0", "--trainer.logger=false", "--trainer.callbacks=null", "--data.num_workers=0"]
    quick += ["--data.init_args.train.init_args.num_images=16"]
    watch(lambda: main(["fit", "--config", "real.yaml", "--config", "hostile.yaml", *quick]))


def test_the_watch_detects_a_process() -> None:
    watch(lambda: os.system("true"))
    assert len(WATCH.seen) == 1
    WATCH.seen.clear()


@pytest.mark.usefixtures("_watched")
def test_the_location_of_a_package_is_found_without_importing_it(tmp_path: Path) -> None:
    (tmp_path / "marker_of_an_import").mkdir()
    (tmp_path / "marker_of_an_import" / "__init__.py").write_text("open('RAN', 'w')")
    (tmp_path / "marker_of_an_import" / "words.txt").write_text("a dog")
    assert resolve("package://marker_of_an_import/words.txt", "list").read_text() == "a dog"
    with pytest.raises(FileNotFoundError, match=r"nowhere_at_all.*not installed"):
        resolve("package://nowhere_at_all/words.txt", "list")
