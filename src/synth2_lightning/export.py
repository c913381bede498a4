"""Captioners to share: a folder of safetensors, plain settings and a card, which loads without running foreign code."""

import hashlib
import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch

from synth2_lightning.class_specs import build_part, copy_plain, refuse_foreign_packages, trusting
from synth2_lightning.files import write_files
from synth2_lightning.fingerprints import fingerprint_weights
from synth2_lightning.interfaces import ImageTokenizer
from synth2_lightning.jsontext import parse_json
from synth2_lightning.locations import HUB_SCHEME, limit_locations, note_locations, resolve
from synth2_lightning.modules.captioner_checkpoint import describe_captioner, read_captioner
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.sharing.files import copy_files, find_files
from synth2_lightning.sharing.folder import CARD, CONFIG, CONTENT, FORMAT, WEIGHTS, is_exported, refuse_taken
from synth2_lightning.sharing.hub import locate_export
from synth2_lightning.sharing.model_card import write_card
from synth2_lightning.sharing.runs import find_run, read_cards, read_data
from synth2_lightning.sharing.weights import load_weights, save_weights

_FORMAT_VERSION = 1
_VERSIONS = ("synth2-lightning", "torch", "transformers", "lightning", "safetensors")


def export_captioner(
    run: str | Path,
    folder: str | Path,
    license: str | None = None,
    cards: Sequence[str | Path] = (),
    trust: Collection[str] = (),
) -> Path:
    """Write a trained captioner as a folder that holds all that it needs, and nothing of this machine.

    It is loaded back and compared bit by bit before it appears; it appears whole or not at all.

    Args:
        run: Folder of a run (its best checkpoint is taken, or its last), or a checkpoint.
        folder: Where it goes: not there yet, empty, or an earlier export, which is replaced.
        license: Of the weights, as the Hub writes it, such as ``"apache-2.0"``.
        cards: Protocol cards of more scores, such as those of ``synth2 test``; the run's own for this checkpoint are
            found.
        trust: Packages whose classes the checkpoint may name, besides this one, torch, lightning and transformers.

    Returns:
        The folder, with ``model.safetensors`` (trained weights), ``config.json`` (parts, versions, fingerprints),
        ``README.md`` (a model card) and ``files/`` (what the parts read).

    Raises:
        FileNotFoundError: If there is no such run, or no such card.
        FileExistsError: If the folder holds something else.
        ValueError: If the checkpoint is no captioner's, does not say how its parts are made, or names classes of
            packages that are not trusted.
        OSError: If the folder cannot be written.

    Example:
        >>> export_captioner("runs/nothing", "captioner")
        Traceback (most recent call last):
        FileNotFoundError: The run or checkpoint is not at 'runs/nothing'...
    """
    target = Path(folder)
    refuse_taken(target)
    found = find_run(run)
    description, step = describe_captioner(found.checkpoint)
    with note_locations() as locations, trusting(trust):
        module = read_captioner(found.checkpoint)
    scores = read_cards(found.folder, step, cards)
    with write_files(target, replaced=CONTENT) as draft:
        save_weights(module.state_dict(), draft / WEIGHTS)
        config = {
            "format": FORMAT,
            "format_version": _FORMAT_VERSION,
            "model": copy_files(description, locations, draft),
            "frozen_parts": {name: fingerprint_weights(name, getattr(module, name)) for name in module.frozen_parts},
            "codebooks": _list_codebooks(module),
            "trained_weights": module.num_trainable(),
            "step": step,
            "weights_sha256": _hash(draft / WEIGHTS),
            "versions": {name: version(name) for name in _VERSIONS},
        }
        (draft / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
        card = write_card(target.absolute().name, config, scores, read_data(found.folder), license)
        (draft / CARD).write_text(card, "utf-8")
        from_hub = {name.removeprefix(HUB_SCHEME) for name in locations if name.startswith(HUB_SCHEME)}
        _compare(module, load_exported(draft, trust, from_hub=from_hub), draft)
    return target


def load_exported(
    location: str | Path,
    trust: Collection[str] = (),
    revision: str | None = None,
    from_hub: Collection[str] = (),
) -> VisionLanguageModule:
    """Load an exported captioner, ready to write captions.

    Nothing is unpickled, and no class is imported but those of trusted packages. Nothing is read but the files of the
    export, those of packages, and weights with a checksum (``weights://``); nothing else is fetched.

    Args:
        location: The folder, or a name on the Hugging Face Hub (``OWNER/NAME``).
        trust: Packages whose classes it may name, besides this one, torch, lightning and transformers.
        revision: Branch, tag or commit on the Hub; name a commit where captions must be repeatable.
        from_hub: Names of models on the Hub that may be fetched, where parts of the captioner lie there.

    Returns:
        The module on the CPU, in evaluation mode, with the weights of all parts.

    Raises:
        FileNotFoundError: If there is no export, or a file of it is missing.
        OSError: If the Hub cannot be reached.
        ValueError: If the export is damaged, names what is not trusted, or its parts are not those that it was
            exported with.

    Example:
        >>> load_exported("./nothing")
        Traceback (most recent call last):
        FileNotFoundError: The exported captioner is not at './nothing'...
    """
    folder = locate_export(location, revision)
    config_text = _read_text(folder)
    try:
        with trusting(trust), limit_locations(folder, from_hub):
            return _load(folder)
    except (OSError, ValueError):
        now = locate_export(location, revision)
        if (now, _read_text(now)) == (folder, config_text):
            raise
        return load_exported(location, trust, revision, from_hub)  # another export took its place meanwhile


def _read_text(folder: Path) -> bytes:
    try:
        return (folder / CONFIG).read_bytes()
    except OSError:
        return b""


def _load(folder: Path) -> VisionLanguageModule:
    config = _read_config(folder)
    description = copy_plain(config["model"], f"The description in {folder / CONFIG}")
    refuse_foreign_packages(description)
    module = cast(VisionLanguageModule, build_part(find_files(description, folder), VisionLanguageModule))
    module.configure_model()
    _check_codebooks(config, module, folder)
    weights = resolve(folder / WEIGHTS, "file of the exported captioner's weights")
    if "weights_sha256" in config and _hash(weights) != config["weights_sha256"]:  # earlier exports have none
        raise ValueError(
            f"{weights} is damaged: it is not the file that {CONFIG} beside it describes. Expected the one "
            "that `synth2 export` wrote: copy or download the folder again."
        )
    module.load_state_dict(load_weights(weights))
    return module.eval()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _list_codebooks(module: VisionLanguageModule) -> dict[str, str]:
    return {name: part.codebook for name, part in module.named_modules() if isinstance(part, ImageTokenizer)}


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not is_exported(folder):
        raise ValueError(f"{path} does not describe a captioner; expected what `synth2 export` wrote into {folder}.")
    config = cast(dict[str, Any], parse_json(path.read_bytes()))
    if config.get("format_version") != _FORMAT_VERSION or not isinstance(config.get("model"), dict):
        raise ValueError(
            f"{path} has format version {config.get('format_version')!r}; this package reads {_FORMAT_VERSION}. Use "
            f"the synth2-lightning that wrote it ({config.get('versions', {}).get('synth2-lightning', 'not recorded')})"
            ", or export the run again."
        )
    return config


def _check_codebooks(config: Mapping[str, Any], module: VisionLanguageModule, folder: Path) -> None:
    expected, present = config.get("codebooks", {}), _list_codebooks(module)
    if expected != present:
        raise ValueError(
            f"The captioner in {folder} was exported with the codebooks {expected}, but its parts brought {present}: "
            "the same ids would mean other things. Expected the same weights: look at what image_encoder names."
        )
    for name, fingerprint in config.get("frozen_parts", {}).items():
        if (brought := fingerprint_weights(name, getattr(module, name))) != fingerprint:
            warnings.warn(
                f"The frozen part {name!r} of the captioner in {folder} has the weights {brought}, but was exported "
                f"with {fingerprint}: captions may differ. Expected the same weights from where its arguments point.",
                stacklevel=3,
            )


def _compare(module: VisionLanguageModule, loaded: VisionLanguageModule, folder: Path) -> None:
    before, after = module.state_dict(), loaded.state_dict()
    different = [name for name in before.keys() | after.keys() if not _is_same(before.get(name), after.get(name))]
    if different:
        raise ValueError(
            f"The captioner that was written to {folder} loads back with {len(different)} other weights (the first: "
            f"{min(different)}); expected all of them bit by bit. Nothing was exported; this is a mistake of ours."
        )


def _is_same(one: Any, other: Any) -> bool:
    return (
        isinstance(one, torch.Tensor)
        and isinstance(other, torch.Tensor)
        and one.dtype == other.dtype
        and torch.equal(one.view(torch.uint8) if one.ndim else one, other.view(torch.uint8) if other.ndim else other)
    )
