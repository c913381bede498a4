"""The settings of a run for its loggers."""

import json

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger


class LoggedConfigCallback(SaveConfigCallback):
    """Writes the settings of a run to its ``config.yaml``, and of a training run to TensorBoard and other loggers."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Log the settings as hyperparameters; called once, on rank 0."""
        if stage != "fit":
            return
        settings = json.loads(self.parser.dump(self.config, skip_none=False, format="json"))
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # it would write them a second time, beside config.yaml
                logger.log_hyperparams(settings)
