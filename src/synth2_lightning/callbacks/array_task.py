"""Splitting a prediction into independent tasks, such as those of a SLURM array."""

from lightning.pytorch import Callback

from synth2_lightning.io.fingerprints import hash_record


class ArrayTaskCallback(Callback):
    """Restricts a prediction to the records of one task.

    Unlike ranks, tasks run independently and do not synchronize. All write to the same folder, and none writes its
    manifest. When all have ended, run the same command without this callback: it makes the records of failed tasks and
    writes the manifest. :class:`~synth2_lightning.callbacks.part_writer.PartWriterCallback` reads this callback.

    Records are assigned by a hash of source and key, so a restarted task has the same records, whatever has been
    written. All tasks that write to a folder at the same time must have the same ``num_tasks``.

    Args:
        task: Index of this task, from 0.
        num_tasks: Number of tasks.

    Raises:
        ValueError: If ``task`` is not from 0 to ``num_tasks - 1``.

    Example:
        >>> [ArrayTaskCallback(task, 3).has(("coco", "7")) for task in range(3)].count(True)
        1
    """

    def __init__(self, task: int, num_tasks: int) -> None:
        if not 0 <= task < num_tasks:
            raise ValueError(
                f"ArrayTaskCallback got task={task} and num_tasks={num_tasks}; expected a task from 0 to num_tasks - "
                "1, such as 0 to 15 of 16 with `sbatch --array=0-15`."
            )
        self.task = task
        self.num_tasks = num_tasks

    def has(self, record: tuple[str, str]) -> bool:
        """Whether a record, given as its source and key, belongs to this task."""
        return hash_record(record) % self.num_tasks == self.task
