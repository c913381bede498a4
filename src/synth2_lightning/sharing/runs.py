"""What a run's folder says about the captioner that it trained: its checkpoint, its scores, its data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth2_lightning.files import require_file
from synth2_lightning.jsontext import parse_json
from synth2_lightning.locations import find_checkpoint, resolve
from synth2_lightning.shards.manifest import Manifest
from synth2_lightning.sharing.sharded import refuse_sharded
from synth2_lightning.yamltext import parse_yaml


@dataclass(frozen=True, slots=True)
class Run:
    """A trained captioner.

    Args:
        checkpoint: The file.
        folder: Of its run, with ``config.yaml`` and ``cider/``; ``None`` where the checkpoint lies alone.

    Example:
        >>> Run(Path("last.ckpt"), None).folder is None
        True
    """

    checkpoint: Path
    folder: Path | None


def find_run(location: str | Path) -> Run:
    """Find the checkpoint of a run, or the run of a checkpoint.

    Args:
        location: As :func:`~synth2_lightning.locations.find_checkpoint` takes it.

    Raises:
        FileNotFoundError: If there is no checkpoint.
    """
    refuse_sharded(resolve(location, "run or checkpoint"))
    checkpoint = find_checkpoint(location)
    refuse_sharded(checkpoint)
    parents = checkpoint.absolute().parents[:2]
    return Run(checkpoint, next((parent for parent in parents if (parent / "config.yaml").is_file()), None))


def read_cards(folder: Path | None, step: int, others: Sequence[str | Path] = ()) -> list[dict[str, Any]]:
    """Read the protocol cards of a run that were written at a step, and others that are named.

    Args:
        folder: Of the run.
        step: Of the checkpoint.
        others: Protocol cards, or the folders that hold them.

    Raises:
        FileNotFoundError: If a card that was named is not there.
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
            f"{path} is no protocol card ({error!r}); expected JSON with 'metric', 'score' and 'split', as `synth2 "
            "test` and `synth2 fit` write it into cider/."
        ) from error


@dataclass(frozen=True, slots=True)
class DataRecord:
    """What a captioner learnt from, as its run file says.

    Args:
        parts: Place in the run file, class and arguments of every part of the data that has some.
        manifests: Of the folders of shards that the run file names; a reason where one cannot be read.
        synthetic_share: Part of the batch that was synthetic, in words; ``None`` where no data was mixed.

    Example:
        >>> DataRecord([], {}, None).manifests
        {}
    """

    parts: list[tuple[str, str, dict[str, Any]]]
    manifests: dict[str, Manifest | str]
    synthetic_share: str | None


def read_data(folder: Path | None) -> DataRecord | None:
    """Read what a run learnt from; ``None`` where no run file lies beside the checkpoint.

    Raises:
        ValueError: If the run file is damaged.
    """
    data = read_run_file(folder).get("data")
    if data is None:
        return None
    parts = list(_list_parts(data, ""))
    shards = {str(arguments["shards"]) for _, _, arguments in parts if arguments.get("shards")}
    shares = (f"{name} {arguments}" for where, name, arguments in parts if where.endswith("synthetic_share"))
    manifests = {place: _read_manifest(place) for place in sorted(shards)}
    return DataRecord(parts, manifests, next(shares, None))


def read_run_file(folder: Path | None) -> Mapping[str, Any]:
    """Read ``config.yaml`` of a run; nothing where none lies beside the checkpoint.

    Raises:
        ValueError: If it is damaged.

    Example:
        >>> read_run_file(None)
        {}
    """
    if folder is None or not (path := folder / "config.yaml").is_file():
        return {}
    try:
        content: Mapping[str, Any] = parse_yaml(path.read_text("utf-8"))
        content["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no run file ({error!r}); expected the one that `synth2 fit` wrote.") from error
    return content


def _list_parts(node: Any, where: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if not isinstance(node, Mapping) or "class_path" not in node:
        return
    given = node.get("init_args")
    arguments = given if isinstance(given, Mapping) else {}
    inner = {name: value for name, value in arguments.items() if isinstance(value, Mapping) and "class_path" in value}
    plain = {name: value for name, value in arguments.items() if name not in inner and value is not None}
    yield where, str(node["class_path"]).rpartition(".")[2], plain
    for name, value in inner.items():
        yield from _list_parts(value, f"{where}.{name}".strip("."))


def _read_manifest(location: str) -> Manifest | str:
    try:
        return Manifest.read(resolve(location, "shards"))
    except (OSError, ValueError) as error:
        return f"could not be read at export ({type(error).__name__})"
