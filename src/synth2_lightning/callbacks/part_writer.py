"""What all callbacks share that write what a prediction makes to a folder: what is there already, settings, ranks."""

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
from synth2_lightning.files import expand_home, lock_file, lock_folder
from synth2_lightning.interfaces import HasInputs, HasProvenance, LeavesOut
from synth2_lightning.remote import is_remote
from synth2_lightning.shards.part_writer import PartWriter
from synth2_lightning.shards.parts import list_locked, list_sources, name_writer


class PartWriterCallback(Callback, ABC):
    """Writes what every ``predict_step`` returns to a folder, rank by rank.

    A run that was killed is started again with the same command: a datamodule that can leave records out
    (:class:`LeavesOut`) is told which are written, by source and key, and deals the rest out; from any other they are
    made again and dropped. The trainer's precision, and the settings of module and datamodule that decide the records
    (:class:`HasProvenance`), must be those of the folder, and so must what the records were made from
    (:class:`HasInputs`): captions, and the files of photographs. The predictions are not kept in memory, so
    ``Trainer.predict`` returns none. (It is no ``BasePredictionWriter``: that asks Lightning for the indices of every
    batch, which nobody needs here.)

    Where the trainer has an :class:`ArrayTaskCallback`, only its task's share is made, and the folder is not summed up.

    No second run can write to the folder at the same time: one process of the run locks it, every process locks the
    parts of its number. Tasks of an array write side by side, but none twice, and not while a run sums up.

    Args:
        folder: Where the records go.
        records_per_part: Records per file; a kill loses no more than these, of each rank. What ends with an exception
            or ctrl-C loses none.

    Raises:
        ValueError: If the folder is behind an address.
    """

    noun: str
    """What a record is, in the plural, for messages."""

    def __init__(self, folder: str, records_per_part: int) -> None:
        if is_remote(folder):
            raise ValueError(
                f"{type(self).__name__} got the folder {folder!r}; expected a path on a local disk or a network share, "
                "because parts are finished by renaming them. Write there, and copy the finished folder to the address."
            )
        self.folder = folder
        self.records_per_part = records_per_part
        self._writer: PartWriter[Any] | None = None
        self._locks = ExitStack()
        self._num_repeated = 0

    @abstractmethod
    def make_writer(self, folder: Path, rank: int) -> PartWriter[Any]:
        """Make the writer of a rank."""

    @abstractmethod
    def append(self, writer: Any, outputs: Any, pl_module: LightningModule) -> int:
        """Give a step's records to the writer, and return how many of them were new.

        Raises:
            TypeError: If the step returned something else.
        """

    @abstractmethod
    def finish(self, folder: Path, provenance: dict[str, Any], settings: dict[str, Any]) -> str:
        """Sum the folder up, on one rank when all have closed; return what to tell the user."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lock the folder, and have what it holds left out; no rank writes before all have looked."""
        if stage != "predict":
            return
        trainer.predict_loop.return_predictions = False
        task = _find_task(trainer)
        number = trainer.global_rank + (task.task * trainer.world_size if task else 0)
        self._lock(trainer, number, task)
        self._writer = self.make_writer(self._path, number)
        self._num_repeated = 0
        datamodule = getattr(trainer, "datamodule", None)
        if isinstance(datamodule, HasInputs):
            self._writer.note_inputs(datamodule.fingerprint_inputs)
            if trainer.is_global_zero:  # the others wait: reading a part of every photograph takes its time
                self._writer.refuse_other_inputs(datamodule.fingerprint_inputs)
        if isinstance(datamodule, LeavesOut):
            if len(self._writer):
                rank_zero_info(f"{len(self._writer)} {self.noun} are in {self.folder} already and are not made again")
            if len(self._writer) or task:
                datamodule.leave_out(_NotToMake(self._writer, task))
        elif task:
            raise ValueError(
                f"{type(datamodule).__name__} cannot leave records out, so it has no share for one of many tasks; "
                "expected a datamodule with leave_out(), as all have that ship. Run it without ArrayTaskCallback."
            )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hold the run to the settings of the folder before anything is made."""
        assert self._writer is not None, "setup makes the writer"
        self._writer.start(_gather_settings(trainer, pl_module))

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take the records of a batch."""
        assert self._writer is not None, "setup makes the writer"
        num_new = self.append(self._writer, outputs, pl_module)
        self._num_repeated += len(outputs) - num_new

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what waits, as long as there is something that can be written to."""
        with self._locks:
            if self._writer is not None and not isinstance(exception, OSError):
                self._writer.close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the rest, and sum up once every rank has done so.

        Here, and not in ``on_predict_end``, which Lightning skips on a rank that has no batch: the others would wait.
        After an error neither is called.
        """
        if self._writer is None or stage != "predict":
            return
        settings = _gather_settings(trainer, pl_module)
        self._writer.start(settings)  # not yet done where there was no batch
        self._writer.close()
        if self._num_repeated:
            rank_zero_info(
                f"{self._num_repeated} {self.noun} were in {self.folder} already, or stood in for damaged ones"
            )
        trainer.strategy.barrier("parts are written")
        if task := _find_task(trainer):
            rank_zero_info(
                f"Task {task.task} of {task.num_tasks} has made its share of {self.folder}. When all have ended, the "
                "same command without ArrayTaskCallback makes what is missing and sums up."
            )
        elif trainer.is_global_zero:
            rank_zero_info(self.finish(self._path, self._describe(pl_module), settings))
        trainer.strategy.barrier("folder is summed up")
        self._writer = None
        self._locks.close()

    def _lock(self, trainer: Trainer, number: int, task: ArrayTaskCallback | None) -> None:
        """Lock the folder for this run, and this process' parts.

        Raises:
            BlockingIOError: If another run, or another process of this number, writes there.
        """
        self._locks.close()
        path = self._path
        if task is None and trainer.is_global_zero:
            self._locks.enter_context(lock_folder(path))
            for other in list_locked(path):  # by tasks of an array, or by what is left of a run whose first rank ended
                with lock_file(other):
                    pass
        trainer.strategy.barrier("folder is locked")
        self._locks.enter_context(lock_file(path / name_writer(number)))
        if task is not None:
            with lock_folder(path, seconds=10.0):  # no run is about to sum up what this task is going to add to
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


class _NotToMake:
    """What is written, and what is no part of a task's share."""

    def __init__(self, written: Container[tuple[str, str]], task: ArrayTaskCallback | None) -> None:
        self._written = written
        self._task = task

    def __contains__(self, record: Any) -> bool:
        return record in self._written or (self._task is not None and not self._task.has(record))


def _find_task(trainer: Trainer) -> ArrayTaskCallback | None:
    callbacks: list[Callback] = getattr(trainer, "callbacks", [])
    return next((callback for callback in callbacks if isinstance(callback, ArrayTaskCallback)), None)


def _gather_settings(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """Settings under the names of the run file's sections."""
    parts = {"model": pl_module, "data": getattr(trainer, "datamodule", None)}
    settings = {name: part.provenance() for name, part in parts.items() if isinstance(part, HasProvenance)}
    return {"trainer": {"precision": trainer.precision}, **settings}
