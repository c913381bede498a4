"""Shares a prediction out to tasks that know nothing of each other, such as those of a SLURM array."""

import hashlib

from lightning.pytorch import Callback


class ArrayTaskCallback(Callback):
    """Has a prediction make its share of the records only: that of one of many tasks, which may run at any time.

    Ranks run at the same time and wait for each other at the end; tasks do not. They write to the same folder, and none
    sums it up: when all have ended, the same command without this callback makes what failed ones left out, and does.
    It is :class:`~synth2_lightning.callbacks.part_writer.PartWriterCallback` that heeds it.

    Whose a record is follows from its source and key alone, so that a task that is started again has the same share,
    whatever is written by then. All tasks of a folder that run at the same time must agree about their number.

    Args:
        task: Which one this is, from 0.
        num_tasks: How many there are.

    Raises:
        ValueError: If there is no such task.

    Example:
        >>> [ArrayTaskCallback(task, 3).has(("coco", "7")) for task in range(3)].count(True)
        1
    """

    def __init__(self, task: int, num_tasks: int) -> None:
        if not 0 <= task < num_tasks:
            raise ValueError(
                f"ArrayTaskCallback got task={task} and num_tasks={num_tasks}; expected a task from 0 to num_tasks - "
                "1, such as those of `sbatch --array=0-15`, of which there are 16."
            )
        self.task = task
        self.num_tasks = num_tasks

    def has(self, record: tuple[str, str]) -> bool:
        """Whether a record, named by its source and its key, is of this task's share."""
        digest = hashlib.blake2b("\0".join(record).encode(), digest_size=8).digest()
        return int.from_bytes(digest) % self.num_tasks == self.task
