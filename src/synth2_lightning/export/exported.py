"""Export and loading of captioners: safetensors, a JSON config and a model card; loading runs no untrusted code."""

import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from synth2_lightning.callbacks.run_folder import run_folder
from synth2_lightning.export.component_files import copy_files, find_files
from synth2_lightning.export.folder import (
    ARCHITECTURE,
    CARD,
    CONFIG,
    CONTENT,
    FORMAT,
    MODEL_TYPE,
    ONNX,
    WEIGHTS,
    check_replaceable,
    is_exported,
)
from synth2_lightning.export.hub import locate_export
from synth2_lightning.export.model_card import write_card
from synth2_lightning.export.runs import DataRecord, find_run, read_cards, read_data, record_data
from synth2_lightning.interfaces import ImageTokenizer
from synth2_lightning.io.atomic import write_files
from synth2_lightning.io.class_specs import build_component, copy_plain
from synth2_lightning.io.fingerprints import fingerprint_file, fingerprint_weights
from synth2_lightning.io.json_text import parse_json
from synth2_lightning.io.locations import HUB_SCHEME, limit_locations, note_locations, resolve
from synth2_lightning.io.messages import one_line
from synth2_lightning.io.safetensors import read_safetensors, write_safetensors
from synth2_lightning.io.trusted_packages import check_packages, list_names, trusting
from synth2_lightning.modules.captioner_checkpoint import (
    copy_captioner,
    describe_captioner,
    describe_module,
    read_captioner,
)
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.modules.question_answering import QuestionAnsweringModule

_FORMAT_VERSION = 1
_MAPPINGS = ("model", "codebooks", "frozen_parts", "versions")
_VERSIONS = ("synth2-lightning", "torch", "transformers", "lightning", "safetensors")


def export_captioner(
    run: str | Path,
    folder: str | Path,
    license: str | None = None,
    cards: Sequence[str | Path] = (),
    trust: Collection[str] = (),
    onnx: bool = False,
) -> Path:
    """Write a trained captioner to a folder without local paths.

    The export is loaded and its weights are compared bit by bit before the folder is written atomically.

    Args:
        run: Folder of a run (its best checkpoint, or else its last one), or a checkpoint.
        folder: A new or empty folder, or an earlier export, which is replaced.
        license: License of the weights as a Hub identifier, such as ``"apache-2.0"``.
        cards: Protocol cards in addition to those that the run wrote for this checkpoint.
        trust: Packages whose classes the checkpoint may name, besides this one, torch, lightning and transformers.
        onnx: Also write the graphs of :func:`~synth2_lightning.export.onnx.export_onnx` to ``onnx/``.

    Returns:
        The folder, with ``model.safetensors`` (trained weights), ``config.json`` (components, versions, fingerprints),
        ``README.md`` (a model card), ``files/`` (files that the components read), and the files of the processor of
        transformers if the captions are tokens of a ``CausalDecoder``.

    Raises:
        FileNotFoundError: If the run or a card does not exist.
        FileExistsError: If the folder holds other files.
        ValueError: If the checkpoint is not of a captioner, does not record the arguments of its components, or names
            classes of packages that are not trusted; or, for ONNX, if its components cannot be converted.
        ModuleNotFoundError: For ONNX, if the extra ``onnx`` is not installed.
        OSError: If the folder cannot be written.

    Example:
        >>> export_captioner("runs/nothing", "captioner")
        Traceback (most recent call last):
        synth2_lightning.io.locations.MissingLocationError: The run or checkpoint is not at 'runs/nothing'...
    """
    target = Path(folder)
    check_replaceable(target)
    found = find_run(run)
    description, step = describe_captioner(found.checkpoint)
    with note_locations() as locations, trusting(trust):
        module = read_captioner(found.checkpoint)
    scores = read_cards(found.folder, step, cards)
    _write(target, module, description, step, locations, scores, read_data(found.folder), license, trust, onnx)
    return target


def save_captioner(
    module: VisionLanguageModule, folder: str | Path, license: str | None = None, cards: Sequence[str | Path] = ()
) -> Path:
    """Write a captioner of this process as :func:`export_captioner` writes one from its checkpoint.

    Args:
        module: A captioner with its weights. Scores are known if its trainer is attached, training data if it was
            trained in this process; for one that was loaded, export its run instead.
        folder: As for :func:`export_captioner`.
        license: As for :func:`export_captioner`.
        cards: As for :func:`export_captioner`; the folder of the run has the others.

    Raises:
        FileNotFoundError: If a card does not exist.
        FileExistsError: If the folder holds other files.
        ValueError: If a component cannot be described, such as one of a class in a notebook.
        OSError: If the folder cannot be written.
    """
    target = Path(folder)
    check_replaceable(target)
    description = describe_module(module)
    packages = {package for _, package in list_names(description)}  # this process has imported their classes
    with note_locations() as locations, trusting(packages):
        copy = copy_captioner(module)
    trainer = _find_trainer(module)
    logs = None if trainer is None else run_folder(trainer)
    data = None if module.training_data is None else record_data(module.training_data)
    scores = read_cards(logs, module.trained_steps or 0, cards)
    _write(target, copy, description, module.trained_steps, locations, scores, data, license, packages)
    return target


def _find_trainer(module: VisionLanguageModule) -> Trainer | None:
    try:
        return module.trainer
    except RuntimeError:  # not attached to a trainer
        return None


def _write(
    target: Path,
    module: VisionLanguageModule,
    description: Mapping[str, Any],
    step: int | None,
    locations: Collection[str],
    scores: Sequence[Mapping[str, Any]],
    data: DataRecord | None,
    license: str | None,
    trust: Collection[str],
    onnx: bool = False,
) -> None:
    with write_files(target, replaced=CONTENT) as draft:
        write_safetensors(module.state_dict(), draft / WEIGHTS)
        frozen = module.frozen_components
        config = {
            "format": FORMAT,
            "format_version": _FORMAT_VERSION,
            "model": copy_files(description, locations, draft),
            "frozen_parts": {name: fingerprint_weights(name, getattr(module, name)) for name in frozen},
            "codebooks": _list_codebooks(module),
            "trained_weights": module.num_trainable(),
            "step": step,
            "weights_sha256": fingerprint_file(draft / WEIGHTS),
            "versions": {name: version(name) for name in _VERSIONS},
            **_write_processor(module, draft),
        }
        (draft / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
        from_hub = {name.removeprefix(HUB_SCHEME) for name in locations if name.startswith(HUB_SCHEME)}
        is_answering = isinstance(module, QuestionAnsweringModule)
        card = write_card(target.absolute().name, config, scores, data, license, from_hub, is_answering)
        (draft / CARD).write_text(card, "utf-8")
        loaded = load_exported(draft, trust, from_hub=from_hub)
        _compare(module, loaded, draft)
        if onnx:
            from synth2_lightning.export.onnx import export_onnx

            export_onnx(loaded, draft / ONNX)


def load_exported(
    location: str | Path,
    trust: Collection[str] = (),
    from_hub: Collection[str] = (),
) -> VisionLanguageModule:
    """Load an exported captioner.

    Nothing is unpickled, and only classes of trusted packages are imported. Only files of the export, files of
    packages, and weights with a checksum (``weights://``) are read.

    Args:
        location: The folder, or a name on the Hugging Face Hub, ``OWNER/NAME`` or ``OWNER/NAME@REVISION``; a commit
            makes captions reproducible.
        trust: Packages whose classes it may name, besides this one, torch, lightning and transformers.
        from_hub: Names of models on the Hub that may be downloaded.

    Returns:
        The module on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: If the export or a file of it is missing.
        OSError: If the Hub cannot be reached.
        ValueError: If the export is damaged, names an untrusted package, or has another codebook than at export.

    Example:
        >>> load_exported("./nothing")
        Traceback (most recent call last):
        synth2_lightning.io.locations.MissingLocationError: The trained captioner is not at './nothing'...
    """
    folder = locate_export(location)
    config_text = _read_text(folder)
    try:
        with trusting(trust), limit_locations(folder, from_hub):
            return _load(folder)
    except (OSError, ValueError):
        now = locate_export(location)
        if (now, _read_text(now)) == (folder, config_text):
            raise
        return load_exported(location, trust, from_hub)  # the export was replaced while it was read


def _read_text(folder: Path) -> bytes:
    try:
        return (folder / CONFIG).read_bytes()
    except OSError:
        return b""


def _load(folder: Path) -> VisionLanguageModule:
    config = _read_config(folder)
    description = copy_plain(config["model"], f"The description in {folder / CONFIG}")
    check_packages(description)
    module: VisionLanguageModule = build_component(find_files(description, folder), VisionLanguageModule)
    module.configure_model()
    _check_codebooks(config, module, folder)
    weights = resolve(folder / WEIGHTS, "file of the exported captioner's weights")
    if fingerprint_file(weights) != config.get("weights_sha256"):
        raise ValueError(
            f"{weights} is damaged: its SHA-256 is not the one in {CONFIG}. Expected the file that `synth2 export` "
            "wrote: copy or download the folder again."
        )
    try:
        module.load_state_dict(read_safetensors(weights))
    except RuntimeError as error:  # of other names or shapes
        raise ValueError(
            f"The weights in {weights} do not fit the module that {folder / CONFIG} describes: "
            f"{one_line(error)}. Expected the files of one export: copy or download the folder again."
        ) from error
    step = config.get("step")
    module.trained_steps = step if isinstance(step, int) else None  # of an untrusted file; paths of scores contain it
    return module.eval()


def _write_processor(module: VisionLanguageModule, folder: Path) -> dict[str, Any]:
    """Write the files of the processor, and return the keys by which transformers finds the classes of the export."""
    from synth2_lightning.export.processing import find_token_decoder, make_processor

    decoder = find_token_decoder(module)
    if decoder is None:
        return {}
    make_processor(module, decoder).save_pretrained(folder)
    return {"model_type": MODEL_TYPE, "architectures": [ARCHITECTURE]}


def _list_codebooks(module: VisionLanguageModule) -> dict[str, str]:
    return {
        name: component.codebook for name, component in module.named_modules() if isinstance(component, ImageTokenizer)
    }


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not is_exported(folder):
        raise ValueError(f"{path} does not describe a captioner; expected the file that `synth2 export` writes.")
    config: dict[str, Any] = parse_json(path.read_bytes())
    damaged = [name for name in _MAPPINGS if not isinstance(config.get(name), dict)]
    if damaged:
        raise ValueError(
            f"{path} has {damaged[0]}={config.get(damaged[0])!r:.100}; expected a mapping, as `synth2 export` writes "
            "it. Copy or download the folder again."
        )
    if config.get("format_version") != _FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {config.get('format_version')!r}; expected {_FORMAT_VERSION}. Use the version "
            f"of synth2-lightning that wrote it ({config['versions'].get('synth2-lightning', 'not recorded')})"
            ", or export the run again."
        )
    return config


def _check_codebooks(config: Mapping[str, Any], module: VisionLanguageModule, folder: Path) -> None:
    expected, present = config["codebooks"], _list_codebooks(module)
    if expected != present:
        raise ValueError(
            f"The captioner in {folder} was exported with the codebooks {expected}, but its components have {present}. "
            "Expected the same weights: check the files that image_encoder names."
        )
    for name in module.frozen_components:
        fingerprint = config["frozen_parts"].get(name)
        if (loaded := fingerprint_weights(name, getattr(module, name))) != fingerprint:
            warnings.warn(
                f"The frozen component {name!r} of the captioner in {folder} has the weights {loaded}; expected "
                f"{fingerprint}, as at export. Captions may differ. Check the files that its arguments name.",
                stacklevel=3,
            )


def _compare(module: VisionLanguageModule, loaded: VisionLanguageModule, folder: Path) -> None:
    before, after = module.state_dict(), loaded.state_dict()
    different = [name for name in before.keys() | after.keys() if not _is_same(before.get(name), after.get(name))]
    if different:
        raise ValueError(
            f"The captioner written to {folder} has {len(different)} different weights when loaded (the first: "
            f"{min(different)}); expected identical weights. Nothing was exported. Please report this bug."
        )


def _is_same(one: object, other: object) -> bool:
    return (
        isinstance(one, torch.Tensor)
        and isinstance(other, torch.Tensor)
        and one.dtype == other.dtype
        and torch.equal(one.view(torch.uint8) if one.ndim else one, other.view(torch.uint8) if other.ndim else other)
    )
