"""Checkpoints that are written while the training continues."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

from synth2_lightning.callbacks.checkpoint_io import CheckedCheckpointIO
from synth2_lightning.io.paths import unwritable


class BackgroundCheckpointIO(CheckedCheckpointIO):
    """Copies a checkpoint in memory, and writes its file in a thread while the training continues.

    Files are written and removed in the order of the calls: an earlier checkpoint is removed only once a later one is
    complete, and none is removed after a write that failed. The error is raised at the next save, or else at the end of
    the run, which waits for the files, also after SIGTERM. A process that is killed while it writes leaves the earlier
    checkpoints; ``last.ckpt`` may then link to one that is missing, and ``--ckpt_path=last`` finds the newest complete
    one. File systems without symbolic links are not supported.

    The copy needs as much memory as the checkpoint, on the devices of its tensors; there is one at a time. Sharding
    strategies write their folders themselves, not in the background. Lightning's ``AsyncCheckpointIO`` would remove
    earlier files at once.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "step=1.ckpt"
        >>> files = BackgroundCheckpointIO()
        >>> files.save_checkpoint({"global_step": 1}, path)
        >>> files.load_checkpoint(path)
        {'global_step': 1}
        >>> files.teardown()
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread: ThreadPoolExecutor | None = None
        self._last_job: Future[None] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Copy a checkpoint, and start to write it, once the one before is written.

        Raises:
            OSError: If the one before could not be written, or the folder of this one cannot be made.
        """
        self._wait()  # memory holds one copy at most
        if "://" not in str(path):
            try:
                Path(path).parent.mkdir(parents=True, exist_ok=True)  # the caller puts a link beside the file at once
            except OSError as error:
                raise unwritable(Path(path), error) from error
        copied = deepcopy(checkpoint)
        self._start(lambda: CheckedCheckpointIO.save_checkpoint(self, copied, path, storage_options))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint once those before are written, unless one of them could not be."""
        self._start(lambda: CheckedCheckpointIO.remove_checkpoint(self, path))

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None) -> Any:
        """Return the content of a checkpoint, once all are written."""
        self._wait()
        return super().load_checkpoint(path, map_location, weights_only)

    def teardown(self) -> None:
        """Run at the end of a run: waits until all checkpoints are written.

        Raises:
            OSError: If one could not be written.
        """
        try:
            self._wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
                self._thread = None

    def _start(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "checkpoints")
        before = self._last_job

        def run() -> None:
            if before is not None:
                before.result()  # raises its error, so that no job after it runs
            job()

        self._last_job = self._thread.submit(run)

    def _wait(self) -> None:
        job, self._last_job = self._last_job, None
        if job is not None:
            job.result()
