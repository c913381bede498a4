from pathlib import Path
from unittest.mock import Mock

import pytest
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from synth2_lightning.cli.logged_config import LoggedConfigCallback


@pytest.mark.parametrize(("stage", "num_calls"), [("fit", 1), ("validate", 0)])
def test_settings_of_a_training_run_reach_its_loggers(stage: str, num_calls: int, tmp_path: Path) -> None:
    parser = LightningArgumentParser()
    parser.add_argument("--model.width", type=int)
    parser.add_argument("--folder", type=Path)
    config = parser.parse_args(["--model.width=8", "--folder", "runs"])
    assert isinstance(config, Namespace)
    logger, other = Mock(spec=TensorBoardLogger), CSVLogger(tmp_path)
    LoggedConfigCallback(parser, config).save_config(Mock(spec=Trainer, loggers=[logger, other]), Mock(), stage)
    assert logger.log_hyperparams.call_count == num_calls
    assert other.experiment.hparams == {}
    if num_calls:
        assert logger.log_hyperparams.call_args.args == ({"model": {"width": 8}, "folder": "runs"},)
