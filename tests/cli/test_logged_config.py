from pathlib import Path
from unittest.mock import Mock

import pytest
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from synth2_lightning.cli.logged_config import LoggedConfigCallback


@pytest.fixture
def parser() -> LightningArgumentParser:
    parser = LightningArgumentParser()
    parser.add_argument("--model.width", type=int)
    parser.add_argument("--folder", type=Path)
    return parser


@pytest.mark.parametrize(("stage", "num_calls"), [("fit", 1), ("validate", 0)])
def test_settings_of_a_training_run_reach_its_loggers(
    stage: str, num_calls: int, parser: LightningArgumentParser, tmp_path: Path
) -> None:
    config = parser.parse_args(["--model.width=8", "--folder", "runs"])
    assert isinstance(config, Namespace)
    logger, other = Mock(spec=TensorBoardLogger), CSVLogger(tmp_path)
    LoggedConfigCallback(parser, config).save_config(Mock(spec=Trainer, loggers=[logger, other]), Mock(), stage)
    assert logger.log_hyperparams.call_count == num_calls
    assert other.experiment.hparams == {}
    if num_calls:
        assert logger.log_hyperparams.call_args.args == ({"model": {"width": 8}, "folder": "runs"},)


@pytest.mark.parametrize(
    ("stage", "has_logger", "is_saved"), [("predict", False, False), ("predict", True, True), ("fit", False, True)]
)
def test_a_prediction_without_a_logger_writes_no_settings_to_the_current_folder(
    stage: str, has_logger: bool, is_saved: bool, parser: LightningArgumentParser, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text("of another command")
    config = parser.parse_args(["--model.width=8", "--folder", "runs"])
    assert isinstance(config, Namespace)
    logger = CSVLogger(tmp_path, name="", version="")
    trainer = Trainer(accelerator="cpu", logger=logger if has_logger else False, default_root_dir=tmp_path)
    LoggedConfigCallback(parser, config, overwrite=True).setup(trainer, Mock(), stage)
    assert ("width: 8" in (tmp_path / "config.yaml").read_text()) is is_saved
