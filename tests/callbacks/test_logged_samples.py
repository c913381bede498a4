import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
import wandb
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from synth2_lightning.callbacks.caption_samples import CaptionSamplesCallback
from synth2_lightning.callbacks.logged_samples import log_image, log_table
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.testing import TinyDecoder, TinyImageTokenizer, TinyResampler, tiny_batch

pytestmark = pytest.mark.filterwarnings("default")  # the packages of the loggers warn
HEADINGS, ROWS = ["prompt", "answer"], [["dog", "a dog runs"]]


def width_of(path: Path) -> int:
    with Image.open(path) as image:
        return image.width


def tensorboard(folder: Path) -> tuple[Logger, Callable[[], tuple[int, str]]]:
    logger = TensorBoardLogger(folder)

    def read() -> tuple[int, str]:
        logger.finalize("success")
        events = EventAccumulator(logger.log_dir, {"images": 0, "tensors": 0}).Reload()
        text: bytes = events.Tensors("val/samples/text_summary")[0].tensor_proto.string_val[0]
        return events.Images("val/captions")[0].width, text.decode()

    return logger, read


def mlflow(folder: Path) -> tuple[Logger, Callable[[], tuple[int, str]]]:
    pytest.importorskip("mlflow", reason="its requirements exclude those of diffusers: pip install --no-deps")
    logger = MLFlowLogger("experiment", tracking_uri=f"file:{folder}")

    def read() -> tuple[int, str]:
        (image,) = folder.glob("*/*/artifacts/val/captions/step=0.png")
        (table,) = folder.glob("*/*/artifacts/val/samples/step=5.md")
        return width_of(image), table.read_text()

    return logger, read


def weights_and_biases(folder: Path) -> tuple[Logger, Callable[[], tuple[int, str]]]:
    logger = WandbLogger("run", save_dir=folder, offline=True)

    def read() -> tuple[int, str]:
        logger.experiment.finish()
        wandb.teardown()  # ends its process, a child of this one
        (image,) = folder.rglob("media/images/val/captions_*.png")
        (table,) = folder.rglob("media/table/val/samples_*.table.json")
        return width_of(image), json.dumps(json.loads(table.read_text())["data"])

    return logger, read


@pytest.mark.parametrize("start", [tensorboard, mlflow, weights_and_biases])
def test_loggers_show_grids_and_tables(
    start: Callable[[Path], tuple[Logger, Callable[[], tuple[int, str]]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger, read = start(tmp_path)
    module = VisionLanguageModule(TinyImageTokenizer(), TinyResampler(), TinyDecoder())
    trainer = Trainer(
        accelerator="cpu", logger=[logger, CSVLogger(tmp_path / "csv")],
        callbacks=[CaptionSamplesCallback(num_images=2, folder=str(tmp_path / "samples"))],
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.validate(module, DataLoader([tiny_batch(2)], batch_size=None), verbose=False)  # type: ignore[arg-type]
    log_table(trainer.loggers, "val/samples", HEADINGS, ROWS, step=5)
    width, text = read()
    assert width == width_of(tmp_path / "samples" / "step=0.png")
    assert "a dog runs" in text


def test_mlflow_gets_artifacts_of_its_run() -> None:
    logger = Mock(spec=MLFlowLogger, run_id="7")
    image = Image.new("RGB", (8, 8))
    log_image([logger], "val/captions", image, step=5)
    log_table([logger], "val/samples", HEADINGS, ROWS, step=5)
    logger.experiment.log_image.assert_called_once_with("7", image, artifact_file="val/captions/step=5.png")
    text = "prompt | answer  \ndog | a dog runs"
    logger.experiment.log_text.assert_called_once_with("7", text, artifact_file="val/samples/step=5.md")
