"""Base class of callbacks that write predictions to a folder in parts."""

from abc import ABC, abstractmethod
from collections.abc import Container
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from synth2_lightning import __version__
from synth2_lightning.callbacks.array_task import ArrayTaskCallback
from synth2_lightning.interfaces import HasInputs, HasProvenance, Skippable
from synth2_lightning.io.locks import lock_file, lock_folder
from synth2_lightning.io.paths import expand_home
from synth2_lightning.io.remote import is_remote
from synth2_lightning.shards.part_writer import PartWriter
from synth2_lightning.shards.parts import list_locked, list_sources, name_writer


class PartWriterCallback(Callback, ABC):
    """Writes the output of every ``predict_step`` to a folder; each rank writes its own parts.

    To resume a killed run, start the same command again. A datamodule that can skip records (:class:`Skippable`) gets
    the source and key of all written ones; with any other they are made again and dropped. The trainer's precision, the
    settings of module and datamodule that determine the records (:class:`HasProvenance`), and their inputs
    (:class:`HasInputs`: captions and image files) must equal those recorded in the folder. ``Trainer.predict`` returns
    no predictions, so that they are not kept in memory. ``BasePredictionWriter`` is not used, because it tracks the
    sample indices of every batch.

    With an :class:`ArrayTaskCallback` only the records of its task are made, and no manifest is written.

    Locks keep a second run from writing to the folder at the same time: one process of the run locks the folder, and
    every process locks its own parts. Tasks of an array run in parallel, but the same task only once, and none while a
    run writes the manifest.

    Args:
        folder: Output folder.
        records_per_part: Records per file; a kill loses at most these, on each rank. An exception or ctrl-C loses none.

    Raises:
        ValueError: If the folder is a remote address.
    """

    noun: str
    """Name of the records in messages, in the plural."""

    def __init__(self, folder: str, records_per_part: int) -> None:
        if is_remote(folder):
            raise ValueError(
                f"{type(self).__name__} got the folder {folder!r}; expected a path on a local or network disk, because "
                "finished parts are renamed. Write there, and copy the finished folder to the address."
            )
        self.folder = folder
        self.records_per_part = records_per_part
        self._writer: PartWriter[Any] | None = None
        self._locks = ExitStack()
        self._num_repeated = 0
        self._has_failed = False  # to write

    @abstractmethod
    def make_writer(self, folder: Path, rank: int) -> PartWriter[Any]:
        """Return the writer of a rank."""

    @abstractmethod
    def append(self, writer: Any, outputs: Any, pl_module: LightningModule) -> int:
        """Write the records of a step, and return how many were new; raise ``TypeError`` for another output."""

    @abstractmethod
    def finish(self, folder: Path, provenance: dict[str, Any], settings: dict[str, Any]) -> str:
        """Write the manifest, on rank 0 after all ranks have written their parts; return a message for the log."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Run before a prediction: locks the folder, and lets the datamodule skip the written records."""
        if stage != "predict":
            return
        trainer.predict_loop.return_predictions = False
        task = _find_task(trainer)
        number = trainer.global_rank + (task.task * trainer.world_size if task else 0)
        self._lock(trainer, number, task)
        self._writer = self.make_writer(self._path, number)
        self._num_repeated, self._has_failed = 0, False
        datamodule = getattr(trainer, "datamodule", None)
        if isinstance(datamodule, HasInputs):
            self._writer.note_inputs(datamodule.fingerprint_inputs)
            if trainer.is_global_zero:  # one rank only: it reads a part of every image file
                self._writer.check_same_inputs(datamodule.fingerprint_inputs)
        if isinstance(datamodule, Skippable):
            if len(self._writer):
                rank_zero_info(f"{len(self._writer)} {self.noun} are in {self.folder} already and are skipped")
            if len(self._writer) or task:
                datamodule.skip(_Skipped(self._writer, task))
        elif task:
            raise ValueError(
                f"{type(datamodule).__name__} cannot skip the records of other tasks; expected a datamodule with "
                "skip(). Use one, or remove ArrayTaskCallback."
            )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run before the first batch: checks the settings of the run against those of the folder."""
        assert self._writer is not None, "set by setup"
        self._writer.start(_gather_settings(trainer, pl_module))

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any) -> None:
        """Run after each batch: writes its records."""
        assert self._writer is not None, "set by setup"
        try:
            num_new = self.append(self._writer, outputs, pl_module)
        except OSError:
            self._has_failed = True
            raise
        self._num_repeated += len(outputs) - num_new

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Run at an error: writes the buffered records, unless the error is that of writing them."""
        with self._locks:
            if self._writer is not None and not self._has_failed:
                self._writer.close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Run after a prediction: writes the buffered records, then the manifest once every rank has done so.

        ``on_predict_end`` is not called on a rank without batches, so a barrier there would deadlock. After an error
        neither hook is called.
        """
        if self._writer is None or stage != "predict":
            return
        settings = _gather_settings(trainer, pl_module)
        self._writer.start(settings)  # on_predict_start is not called on a rank without batches
        self._writer.close()
        if self._num_repeated:
            rank_zero_info(f"{self._num_repeated} {self.noun} were in {self.folder} already, or replaced damaged ones")
        trainer.strategy.barrier("parts are written")
        if task := _find_task(trainer):
            rank_zero_info(
                f"Task {task.task} of {task.num_tasks} has written its {self.noun} to {self.folder}. When all tasks "
                "have ended, run the same command without ArrayTaskCallback: it makes the missing records and writes "
                "the manifest."
            )
        elif trainer.is_global_zero:
            rank_zero_info(self.finish(self._path, self._describe(pl_module), settings))
        trainer.strategy.barrier("manifest is written")
        self._writer = None
        self._locks.close()

    def _lock(self, trainer: Trainer, number: int, task: ArrayTaskCallback | None) -> None:
        """Lock the folder for this run, and the parts of this process."""
        self._locks.close()
        path = self._path
        if task is None and trainer.is_global_zero:
            self._locks.enter_context(lock_folder(path))
            for other in list_locked(path):  # by array tasks, or by ranks of a run whose rank 0 has ended
                with lock_file(other):
                    pass
        trainer.strategy.barrier("folder is locked")
        self._locks.enter_context(lock_file(path / name_writer(number)))
        if task is not None:
            with lock_folder(path, seconds=10.0):  # wait until no run writes the manifest
                pass

    @property
    def _path(self) -> Path:
        return expand_home(self.folder)

    def _describe(self, pl_module: LightningModule) -> dict[str, Any]:
        return {
            "synth2_lightning": __version__,
            "made_by": type(pl_module).__name__,
            "sources": list_sources(self._path),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }


class _Skipped:
    """Records that are written, and those of other tasks."""

    def __init__(self, written: Container[tuple[str, str]], task: ArrayTaskCallback | None) -> None:
        self._written = written
        self._task = task

    def __contains__(self, record: Any) -> bool:
        return record in self._written or (self._task is not None and not self._task.has(record))


def _find_task(trainer: Trainer) -> ArrayTaskCallback | None:
    callbacks: list[Callback] = getattr(trainer, "callbacks", [])
    return next((callback for callback in callbacks if isinstance(callback, ArrayTaskCallback)), None)


def _gather_settings(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """Return settings by the sections of a run file."""
    parts = {"model": pl_module, "data": getattr(trainer, "datamodule", None)}
    settings = {name: part.provenance() for name, part in parts.items() if isinstance(part, HasProvenance)}
    return {"trainer": {"precision": trainer.precision}, **settings}
