"""The folder of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger


def run_folder(trainer: Trainer) -> Path:
    """Return the folder of a run, in which Lightning also has its checkpoints by default.

    ``Trainer.log_dir`` is the same for all runs with a logger such as Weights & Biases, so that each run would replace
    the files of the one before; and it is a collective call. The folder may differ on ranks other than 0.

    Example:
        >>> run_folder(Trainer(logger=False, default_root_dir="runs")).name
        'runs'
    """
    if not trainer.loggers:
        return Path(trainer.default_root_dir)
    logger = trainer.loggers[0]
    if isinstance(logger, CSVLogger | TensorBoardLogger):
        return Path(logger.log_dir)
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir, str(logger.name), version)


@contextmanager
def name_folder_settings(callback: object) -> Iterator[None]:
    """Name the settings that change a callback's folder in errors of the file system."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{type(callback).__name__}: {error} Set --trainer.default_root_dir or the callback's `folder`."
        ) from error
