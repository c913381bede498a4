"""Selection of a checkpoint (the last, the best, or a path), and checks before it is loaded."""

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info

from synth2_lightning.callbacks.checkpoint_io import check_intact, find_checkpoint_to_resume, run_folders
from synth2_lightning.callbacks.run_settings import RunSettingsCallback
from synth2_lightning.callbacks.settings_changes import (
    explain_changes,
    explain_network_changes,
    list_changes,
    list_network_changes,
)
from synth2_lightning.export.sharded import check_not_sharded, check_sharded, is_sharded
from synth2_lightning.io.checkpoint_files import find_best_checkpoint, read_checkpoint
from synth2_lightning.io.locations import find_checkpoint


def find_last(trainer: Trainer, watch: RunSettingsCallback, is_fit: bool) -> str | None:
    """Return the newest checkpoint with the same settings; training then resumes in its folder.

    Lightning would search the folder of the new run, which is empty. Without a checkpoint, training starts a new run,
    and evaluation and prediction fail. Evaluation and prediction require the same settings of the network only.

    Args:
        trainer: Trainer whose loggers and checkpoint callbacks name the folders.
        watch: Callback with the settings of this run.
        is_fit: Whether the command trains.

    Raises:
        FileNotFoundError: If there is no checkpoint to evaluate.
        ValueError: If the settings differ from those of the newest checkpoint.
    """
    compare, explain = (list_changes, explain_changes) if is_fit else (list_network_changes, explain_network_changes)
    folders = _list_folders(trainer)
    found = find_checkpoint_to_resume(folders, lambda content: compare(content, watch.settings))
    if found is None:
        searched = ", ".join(map(str, folders))
        if not is_fit:
            raise FileNotFoundError(
                f"There is no checkpoint in {searched}. Expected the folder in which `synth2 fit` was started as the "
                "current one, or the path of a checkpoint as --ckpt_path."
            )
        rank_zero_info(f"There is no checkpoint to resume from in {searched}: a new run starts.")
        return None
    path, changes = found
    if changes and not (is_fit and watch.allows_changes):
        raise ValueError(explain(path, changes))
    if is_fit and not changes:  # with changes it is a new run, in a new folder
        for saver in _list_savers(trainer):
            saver.dirpath = saver.dirpath or str(path.parent)
    return str(path)


def find_best(trainer: Trainer, watch: RunSettingsCallback) -> str:
    """Return the best-scoring checkpoint of the newest run of the same network that has a score.

    Raises:
        FileNotFoundError: If no checkpoint has a score.
        ValueError: If the network's settings differ from those of all such checkpoints.
    """
    monitors = (saver.monitor for saver in _list_savers(trainer))
    monitor = next((name for name in monitors if name not in (None, "step", "epoch")), None)
    folders = _list_folders(trainer)
    newest: tuple[Path, list[str]] | None = None
    for folder in folders:
        if (path := find_best_checkpoint(folder, monitor)) is None:
            continue
        content = read_checkpoint(path / "meta.pt" if path.is_dir() else path)
        if not (changes := list_network_changes(content, watch.settings)):
            return str(path)
        newest = newest or (path, changes)
    if newest is not None:
        raise ValueError(explain_network_changes(*newest))
    raise FileNotFoundError(
        f"There is no checkpoint with a score{f' of {monitor}' if monitor else ''} in "
        f"{', '.join(map(str, folders))}. Expected one that a ModelCheckpoint with a monitor saved. Use --ckpt_path "
        "last, or the path of a checkpoint."
    )


def check_settings(checkpoint: Path, watch: RunSettingsCallback) -> None:
    """Compare the settings in a checkpoint with those of this run, before data and weights are loaded.

    Remote checkpoints and folders of DeepSpeed are compared after the strategy has loaded them.

    Raises:
        ValueError: If the checkpoint is damaged, or settings differ.
    """
    check_intact(checkpoint)
    file = checkpoint / "meta.pt" if is_sharded(checkpoint) else checkpoint
    if file.is_file():
        watch.check(checkpoint, read_checkpoint(file))


def check_content(checkpoint: Path, strategy: object) -> None:
    """Raise on a checkpoint that is damaged or may hold code, if the strategy loads it by itself, unchecked.

    Other strategies load files only, by :class:`~synth2_lightning.callbacks.checkpoint_io.CheckedCheckpointIO`, except
    DeepSpeed, whose folders can run code: it unpickles them. They are loaded only if the user names them.

    Raises:
        FileNotFoundError: If a file of a sharded checkpoint is missing.
        IsADirectoryError: If it is the folder of a run, or is sharded and the strategy does not load sharded
            checkpoints.
        ValueError: If it is damaged, or holds more than tensors and plain values.
    """
    if (checkpoint / "checkpoints").is_dir() or any(checkpoint.glob("*.ckpt")):
        raise IsADirectoryError(
            f"{checkpoint} is a folder with checkpoints; expected a checkpoint, such as {find_checkpoint(checkpoint)}."
        )
    if not isinstance(strategy, FSDPStrategy | ModelParallelStrategy):
        check_not_sharded(checkpoint)
    elif is_sharded(checkpoint):
        check_sharded(checkpoint)
    elif checkpoint.is_file():
        read_checkpoint(checkpoint)


def _list_savers(trainer: Trainer) -> list[ModelCheckpoint]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]


def _list_folders(trainer: Trainer) -> list[Path]:
    """Return the possible checkpoint folders of this run and of earlier ones, the newest run first."""
    folders = [Path(saver.dirpath) for saver in _list_savers(trainer) if saver.dirpath]
    place = Path(trainer.default_root_dir)
    if (logger := trainer.logger) is not None and not logger.log_dir:
        # As of W&B and MLflow: Lightning names a run's folder by its id, which is new for each process.
        runs = Path(logger.save_dir or place) / str(logger.name)
        checkpoints = sorted(runs.glob("*/checkpoints"), key=lambda path: path.stat().st_mtime, reverse=True)
        return [*folders, *(checkpoints or [runs / "*" / "checkpoints"])]
    logs = Path(logger.log_dir) if logger is not None and logger.log_dir else place
    return list(dict.fromkeys([*folders, *run_folders(logs / "checkpoints")]))
