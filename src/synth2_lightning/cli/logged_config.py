"""The settings of a run for its loggers."""

import json

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger


class LoggedConfigCallback(SaveConfigCallback):
    """Writes the settings of a run to its ``config.yaml``, and of a training run to TensorBoard and other loggers.

    An evaluation or prediction without a logger has no run folder. Lightning would write ``config.yaml`` to the current
    folder, over that of another command. The manifest of a prediction has the settings that determine the records.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Run before a stage: writes the settings, if the run has a folder."""
        if trainer.loggers or stage == "fit":
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Log the settings as hyperparameters; called once, on rank 0."""
        if stage != "fit":
            return
        settings = json.loads(self.parser.dump(self.config, skip_none=False, format="json"))
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # it would write them a second time, beside config.yaml
                logger.log_hyperparams(settings)
