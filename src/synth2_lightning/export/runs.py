"""Checkpoint, scores and training data of a run, read from its folder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth2_lightning.export.sharded import check_not_sharded
from synth2_lightning.io.json_text import parse_json
from synth2_lightning.io.locations import find_checkpoint, resolve
from synth2_lightning.io.paths import require_file
from synth2_lightning.io.yaml_text import parse_yaml
from synth2_lightning.shards.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Run:
    """A trained captioner.

    Args:
        checkpoint: The file.
        folder: Folder of its run, with ``config.yaml``, or scores in ``cider/``; ``None`` if there is none.
    """

    checkpoint: Path
    folder: Path | None


def find_run(location: str | Path) -> Run:
    """Return the checkpoint of :func:`~synth2_lightning.io.locations.find_checkpoint`, and the folder of its run.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it has weights alone.
    """
    check_not_sharded(resolve(location, "run or checkpoint"))
    checkpoint = find_checkpoint(location)
    check_not_sharded(checkpoint)
    if checkpoint.suffix == ".safetensors":
        raise ValueError(
            f"{checkpoint} has weights alone, without the components; expected a checkpoint, the folder of a run, or "
            "an export: name the folder in which `synth2 export` wrote this file."
        )
    parents = checkpoint.absolute().parents[:2]
    return Run(checkpoint, next(filter(_is_run, parents), None))


def _is_run(folder: Path) -> bool:
    # A trainer of a script writes no run file.
    return (folder / "config.yaml").is_file() or next(folder.glob("*/*-step=*/protocol.json"), None) is not None


def read_cards(folder: Path | None, step: int, others: Sequence[str | Path] = ()) -> list[dict[str, Any]]:
    """Read the protocol cards that a run wrote at a step, and additional ones.

    Args:
        folder: Folder of the run.
        step: Step of the checkpoint.
        others: Additional protocol cards, or the folders that hold them.

    Raises:
        FileNotFoundError: If one of ``others`` is missing.
        ValueError: If a card is damaged.
    """
    paths = [] if folder is None else sorted(folder.glob(f"*/*-step={step}/protocol.json"))
    for other in others:
        path = resolve(other, "protocol card")
        paths.append(resolve(path / "protocol.json", "protocol card") if path.is_dir() else path)
    return [_read_card(path) for path in paths]


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = parse_json(require_file(path).read_bytes())
        return {"metric": card["metric"], "score": float(card["score"]), "split": card["split"], **card}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a protocol card ({error!r}); expected JSON with 'metric', 'score' and 'split', as "
            "`synth2 test` and `synth2 fit` write it to cider/."
        ) from error


@dataclass(frozen=True, slots=True)
class DataRecord:
    """Training data of a captioner, as recorded in its run file.

    Args:
        components: Key in the run file, class and arguments of every component of the data.
        manifests: Manifests of the shards that the run file names; the reason if one cannot be read.
        synthetic_fraction: Class and arguments of the synthetic fraction of a batch; ``None`` if data was not mixed.
    """

    components: list[tuple[str, str, dict[str, Any]]]
    manifests: dict[str, Manifest | str]
    synthetic_fraction: str | None


def read_data(folder: Path | None) -> DataRecord | None:
    """Return the training data of a run; ``None`` if there is no run file.

    Raises:
        ValueError: If the run file is damaged.
    """
    data = read_run_file(folder).get("data")
    return None if data is None else record_data(data)


def record_data(data: Mapping[str, Any]) -> DataRecord:
    """Return the training data that a datamodule's class spec names."""
    components = list(_list_components(data, ""))
    shards = {str(arguments["shards"]) for _, _, arguments in components if arguments.get("shards")}
    fractions = (f"{name} {arguments}" for where, name, arguments in components if where.endswith("synthetic_fraction"))
    manifests = {location: _read_manifest(location) for location in sorted(shards)}
    return DataRecord(components, manifests, next(fractions, None))


def read_run_file(folder: Path | None) -> Mapping[str, Any]:
    """Return the content of a run's ``config.yaml``; empty if there is none.

    Raises:
        ValueError: If it is damaged.
    """
    if folder is None or not (path := folder / "config.yaml").is_file():
        return {}
    try:
        content: Mapping[str, Any] = parse_yaml(path.read_text("utf-8"))
        content["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a run file ({error!r}); expected the one that `synth2 fit` wrote.") from error
    return content


def _list_components(node: object, where: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if not isinstance(node, Mapping) or "class_path" not in node:
        return
    init_args = node.get("init_args")
    arguments = init_args if isinstance(init_args, Mapping) else {}
    inner = {name: value for name, value in arguments.items() if isinstance(value, Mapping) and "class_path" in value}
    plain = {name: value for name, value in arguments.items() if name not in inner and value is not None}
    yield where, str(node["class_path"]).rpartition(".")[2], plain
    for name, value in inner.items():
        yield from _list_components(value, f"{where}.{name}".strip("."))


def _read_manifest(location: str) -> Manifest | str:
    try:
        return Manifest.read(resolve(location, "shards"))
    except (OSError, ValueError) as error:
        return f"could not be read at export ({type(error).__name__})"
