"""Checkpoint files: written whole or not at all, checked when they are read, and the newest good one found."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from synth2_lightning.files import write_atomically
from synth2_lightning.weight_files import find_damage, plain_values_only, read_checkpoint


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
            ValueError: If it is damaged, when the message names the newest good one that lies beside it, or may hold
                code.
        """
        if "://" not in str(path) and Path(path).is_file() and (damage := find_damage(Path(path))):
            others = [step_and_path for step_and_path in _list_good([Path(path).parent]) if step_and_path[1] != path]
            way_out = f"Go on from {others[-1][1]}, of step {others[-1][0]}" if others else "No good one lies beside it"
            raise ValueError(
                f"The checkpoint {path} is damaged: {damage}. Expected the file as it was written. {way_out}."
            )
        with plain_values_only(Path(path)):
            return super().load_checkpoint(path, map_location, weights_only is not False)


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
    damaged: list[str] = []
    for folder in folders:
        good = _list_good([folder], damaged)
        if good:
            whole = [(step, path) for step, path in good if path.name.startswith(("step=", "last"))]
            step, path = (whole or good)[-1]
            if damaged:
                rank_zero_warn(f"Damaged checkpoints: {' '.join(damaged)} {path}, of step {step}, is used instead.")
            return path
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


def _list_good(folders: Iterable[Path], damaged: list[str] | None = None) -> list[tuple[int, Path]]:
    """Steps and paths of the checkpoints that can be read, in the order in which they were written."""
    good: list[tuple[int, bool, Path]] = []
    for folder in folders:
        last = (folder / "last.ckpt").resolve()
        for path in folder.glob("*.ckpt"):
            if path.is_symlink() and (path.resolve().parent == folder.resolve() or not path.exists()):
                continue  # what it links to is in the list, or gone
            try:
                if (path / "latest").is_file():
                    raise ValueError(f"{path} is DeepSpeed's, which unpickles it: if it is yours, name it itself.")
                content = read_checkpoint(path / "meta.pt" if path.is_dir() else path)
                good.append((int(content.get("global_step", 0)), path.resolve() == last, path))
            except (ValueError, TypeError, OSError) as error:
                if damaged is not None:
                    damaged.append(str(error))
    return [(step, path) for step, _, path in sorted(good, key=lambda entry: (*entry[:2], entry[2].name))]
