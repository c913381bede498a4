"""Checkpoint files: written whole or not at all, checked when they are read, and the newest good one found."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from synth2_lightning.files import write_atomically
from synth2_lightning.weight_files import find_damage, plain_values_only, read_checkpoints


class CheckedCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints so that a kill leaves the old one or the new one, and refuses damaged ones.

    The checksum is the one that ``torch.save`` puts into its file, a zip archive, for every tensor (CRC-32): there is
    no second file that could be lost or be of another checkpoint. What lies behind an address (``s3://``) is left to
    Lightning and to the store's own checksums, and so are the folders that sharding strategies write.

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
            OSError: If it cannot be written; an earlier one at this path is as it was.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            write_atomically(Path(path), lambda draft: _save(checkpoint, draft))

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None) -> Any:
        """Read a checkpoint, tensors and plain values only unless ``weights_only=False`` allows more.

        Raises:
            FileNotFoundError: If it is gone.
            ValueError: If it is damaged, when the message names the newest good one that lies beside it, or may hold
                code.
        """
        if "://" not in str(path):
            refuse_damaged(Path(path))
        if "://" not in str(path) and not Path(path).exists():
            raise FileNotFoundError(
                f"The checkpoint {path} is gone since it was found: another run saves its own in that folder. Expected "
                "one run at a time there: wait until it has ended, and start this command again."
            )
        with plain_values_only(Path(path)):
            return super().load_checkpoint(path, map_location, weights_only is not False)


def refuse_damaged(path: Path) -> None:
    """Refuse a damaged checkpoint file; folders and what is missing are left to others.

    Raises:
        ValueError: If it is damaged; the message names the newest good one that lies beside it.

    Example:
        >>> refuse_damaged(Path("gone.ckpt"))
    """
    if not path.is_file() or not (damage := find_damage(path)):
        return
    others = [candidate for candidate in _list_good([path.parent]) if candidate.path != path]
    way_out = "No good one lies beside it"
    if others:
        way_out = f"Go on from {others[-1].path}, of step {others[-1].step}"
    raise ValueError(f"The checkpoint {path} is damaged: {damage}. Expected the file as it was written. {way_out}.")


def find_last_checkpoint(folders: Iterable[Path]) -> Path | None:
    """Give the good checkpoint with the most steps in the first folder that has one, and warn of damaged ones.

    No clock is asked: of two of the same step ``last.ckpt``, or the one that it links to, is taken. Those with other
    names than a ``LastCheckpointCallback`` gives are a last resort: they may be from the middle of a step.

    Args:
        folders: Searched in this order; those that are not there are passed over.

    Raises:
        ValueError: If there are checkpoints, and all are damaged, or DeepSpeed's.

    Example:
        >>> find_last_checkpoint([Path("gone")]) is None
        True
    """
    found = find_checkpoint_to_resume(folders, lambda content: [])
    return found and found[0]


def find_checkpoint_to_resume(
    folders: Iterable[Path], list_changes: Callable[[Mapping[str, Any]], list[str]]
) -> tuple[Path, list[str]] | None:
    """Return the newest good checkpoint without changed settings or else the newest one, with its changed settings.

    Args:
        folders: Of runs, the newest first; within a folder the order is that of :func:`find_last_checkpoint`.
        list_changes: Returns one line for each setting in a checkpoint that differs from the present one.

    Raises:
        ValueError: If there are checkpoints, and all are damaged, or DeepSpeed's.

    Example:
        >>> find_checkpoint_to_resume([Path("gone")], lambda content: []) is None
        True
    """
    damaged: list[str] = []
    newest: _Candidate | None = None
    for folder in folders:
        good = _list_good([folder], damaged, list_changes)
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
            f"No checkpoint here can be gone on from: {' '.join(damaged)} Bring one back from a copy, name another by "
            "--ckpt_path, or start again without."
        )
    return None


def run_folders(checkpoints: Path) -> list[Path]:
    """Give the folder of a run's checkpoints, and those of the runs that were numbered before it, the newest first.

    Args:
        checkpoints: Such as ``runs/version_3/checkpoints``.

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
    except RuntimeError as error:  # torch's own word for a full disk
        raise OSError(f"it was taken in part only, as by a full disk ({str(error).splitlines()[0]})") from error


class _Candidate(NamedTuple):
    step: int
    is_last: bool
    path: Path
    changes: list[str]


def _last(good: list[_Candidate]) -> _Candidate:
    whole = [candidate for candidate in good if candidate.path.name.startswith(("step=", "last"))]
    return (whole or good)[-1]


def _warn_of_damage(damaged: list[str], used: _Candidate) -> None:
    if damaged:
        rank_zero_warn(f"Damaged checkpoints: {' '.join(damaged)} {used.path}, of step {used.step}, is used instead.")


def _list_good(
    folders: Iterable[Path],
    damaged: list[str] | None = None,
    list_changes: Callable[[Mapping[str, Any]], list[str]] = lambda content: [],
) -> list[_Candidate]:
    """The checkpoints that can be read, in the order in which they were written."""
    good: list[_Candidate] = []
    for folder in folders:
        last = (folder / "last.ckpt").resolve()
        for path, content in read_checkpoints(folder):
            try:
                if isinstance(content, Exception):
                    raise content
                step = int(content.get("global_step", 0))
                good.append(_Candidate(step, path.resolve() == last, path, list_changes(content)))
            except (ValueError, TypeError, OSError) as error:
                if damaged is not None:
                    damaged.append(str(error))
    return sorted(good, key=lambda candidate: (candidate.step, candidate.is_last, candidate.path.name))
