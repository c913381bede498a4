"""Checkpoint files: atomic writes, verified reads, and the search for the newest valid checkpoint."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from synth2_lightning.io.atomic import write_atomically
from synth2_lightning.io.checkpoint_files import find_damage, plain_values_only, read_checkpoints


class CheckedCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically, and refuses damaged ones.

    The checksums are those in the file itself: ``torch.save`` writes a zip archive with a CRC-32 of every tensor.
    Remote addresses (``s3://``) and the folders of sharding strategies are left to Lightning.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "step=1.ckpt"
        >>> CheckedCheckpointIO().save_checkpoint({"global_step": 1}, path)
        >>> CheckedCheckpointIO().load_checkpoint(path)
        {'global_step': 1}
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: If it cannot be written; an earlier file at this path is unchanged.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            write_atomically(Path(path), lambda draft: _save(checkpoint, draft))

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None) -> Any:
        """Return the content of a checkpoint: tensors and plain values only, unless ``weights_only=False``.

        Raises:
            FileNotFoundError: If it does not exist.
            ValueError: If it may contain code, or is damaged; then the message names the newest valid checkpoint in
                the same folder.
        """
        if "://" not in str(path):
            check_intact(Path(path))
            if not Path(path).exists():
                raise FileNotFoundError(
                    f"The checkpoint {path} does not exist: another run replaced it. Expected one run at a time in "
                    "this folder. Wait until the other run has ended, and start this command again."
                )
        with plain_values_only(Path(path)):
            return super().load_checkpoint(path, map_location, weights_only is not False)


def check_intact(path: Path) -> None:
    """Raise on a damaged checkpoint file; folders and missing files are not checked.

    Raises:
        ValueError: If it is damaged; the message names the newest valid checkpoint in the same folder.

    Example:
        >>> check_intact(Path("gone.ckpt"))
    """
    if not path.is_file() or not (damage := find_damage(path)):
        return
    good, _ = _list_valid(path.parent, lambda content: [])
    others = [candidate for candidate in good if candidate.path != path]
    advice = "No good checkpoint is in the same folder"
    if others:
        advice = f"Resume from {others[-1].path}, of step {others[-1].step}"
    raise ValueError(f"The checkpoint {path} is damaged: {damage}. Expected the file as it was written. {advice}.")


def find_checkpoint_to_resume(
    folders: Iterable[Path], list_changes: Callable[[Mapping[str, Any]], list[str]]
) -> tuple[Path, list[str]] | None:
    """Return the newest valid checkpoint with unchanged settings, or else the newest one with its changed settings.

    The newest of a folder is the one with the most steps: file times are not compared, and of two of the same step,
    ``last.ckpt`` or its target is preferred. Checkpoints with names other than those of ``LastCheckpointCallback`` come
    last: they may be from the middle of a step. A warning lists the damaged ones.

    Args:
        folders: Folders of checkpoints, the newest run first; missing ones are skipped.
        list_changes: Returns one line for each setting in a checkpoint that differs from the present one.

    Raises:
        ValueError: If there are checkpoints, and all are damaged or of DeepSpeed.

    Example:
        >>> find_checkpoint_to_resume([Path("gone")], lambda content: []) is None
        True
    """
    damaged: list[str] = []
    newest: _Candidate | None = None
    for folder in folders:
        good, unreadable = _list_valid(folder, list_changes)
        damaged += unreadable
        if not good:
            continue
        newest = newest or _last(good)
        if not (same := [candidate for candidate in good if not candidate.changes]):
            continue
        found = _last(same)
        _warn_of_damage(damaged, found)
        if newest.changes:
            folder = newest.path.parent
            run = folder.parent if folder.name == "checkpoints" else folder
            rank_zero_warn(
                f"The run in {run} is newer, but was trained with other settings: {len(newest.changes)} differ, such "
                f"as {newest.changes[0]} (saved -> now). {found.path}, of step {found.step}, has the present settings "
                "and is used instead."
            )
        return found.path, []
    if newest is not None:
        _warn_of_damage(damaged, newest)
        return newest.path, newest.changes
    if damaged:
        raise ValueError(
            f"No checkpoint can be used to resume: {' '.join(damaged)} Expected a valid one. Restore one from a "
            "backup, select another with --ckpt_path, or start a new run without it."
        )
    return None


def run_folders(checkpoints: Path) -> list[Path]:
    """Return the checkpoint folders of a run and of the other numbered runs beside it, newest first.

    Args:
        checkpoints: Checkpoint folder of the run, such as ``runs/version_3/checkpoints``.

    Example:
        >>> run_folders(Path("gone/version_3/checkpoints"))
        [PosixPath('gone/version_3/checkpoints')]
    """
    run = checkpoints.parent
    if not run.name.startswith("version_"):
        return [checkpoints]
    numbered = {
        int(match[1]): sibling / checkpoints.name
        for sibling in run.parent.glob("version_*")
        if (match := re.fullmatch(r"version_(\d+)", sibling.name)) and sibling != run
    }
    return [checkpoints, *(numbered[number] for number in sorted(numbered, reverse=True))]


def _save(checkpoint: dict[str, Any], draft: Path) -> None:
    try:
        torch.save(checkpoint, draft)
    except RuntimeError as error:  # torch raises it for a full disk
        raise OSError(f"the file was written in part only, as by a full disk ({str(error).splitlines()[0]})") from error


class _Candidate(NamedTuple):
    step: int
    is_last: bool
    path: Path
    changes: list[str]


def _last(good: list[_Candidate]) -> _Candidate:
    complete = [candidate for candidate in good if candidate.path.name.startswith(("step=", "last"))]
    return (complete or good)[-1]


def _warn_of_damage(damaged: list[str], used: _Candidate) -> None:
    if damaged:
        rank_zero_warn(f"Damaged checkpoints: {' '.join(damaged)} {used.path}, of step {used.step}, is used instead.")


def _list_valid(
    folder: Path, list_changes: Callable[[Mapping[str, Any]], list[str]]
) -> tuple[list[_Candidate], list[str]]:
    """Return the readable checkpoints, in the order in which they were written, and the errors of the others."""
    good: list[_Candidate] = []
    damaged: list[str] = []
    last = (folder / "last.ckpt").resolve()
    for path, content in read_checkpoints(folder):
        try:
            if isinstance(content, Exception):
                raise content
            step = int(content.get("global_step", 0))
            good.append(_Candidate(step, path.resolve() == last, path, list_changes(content)))
        except (ValueError, TypeError, OSError) as error:
            damaged.append(str(error))
    return sorted(good, key=lambda candidate: (candidate.step, candidate.is_last, candidate.path.name)), damaged
