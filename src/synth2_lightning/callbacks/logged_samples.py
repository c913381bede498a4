"""Images and texts for the loggers that can show them: TensorBoard, Weights & Biases and MLflow."""

from collections.abc import Iterable

import numpy as np
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image


def log_image(loggers: Iterable[Logger], name: str, image: Image.Image, step: int) -> None:
    """Log an image; loggers without images are skipped.

    Args:
        loggers: The trainer's loggers.
        name: Name, such as ``val/captions``.
        image: The image.
        step: Number of optimization steps.

    Example:
        >>> log_image([], "val/captions", Image.new("RGB", (8, 8)), step=100)
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, np.asarray(image), step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(name, [image], step=step)
        elif isinstance(logger, MLFlowLogger) and logger.run_id is not None:
            logger.experiment.log_image(logger.run_id, image, artifact_file=f"{name}/step={step}.png")


def log_table(loggers: Iterable[Logger], name: str, headings: list[str], rows: list[list[str]], step: int) -> None:
    """Log a table of texts; loggers without texts are skipped.

    Args:
        loggers: The trainer's loggers.
        name: Name, such as ``val/samples``.
        headings: Headings of the columns.
        rows: Cells, a list for each row.
        step: Number of optimization steps.

    Example:
        >>> log_table([], "val/samples", ["prompt", "answer"], [["dog", "a dog runs"]], step=100)
    """
    text = "  \n".join(" | ".join(line) for line in (headings, *rows))  # Markdown
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(name, text, step)
        elif isinstance(logger, WandbLogger):
            logger.log_text(name, columns=headings, data=rows, step=step)
        elif isinstance(logger, MLFlowLogger) and logger.run_id is not None:
            logger.experiment.log_text(logger.run_id, text, artifact_file=f"{name}/step={step}.md")
