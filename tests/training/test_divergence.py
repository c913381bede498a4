import pytest
from lightning.pytorch import LightningModule, Trainer

from synth2_lightning.training.divergence import check_batch
from synth2_lightning.training.step_status import BatchStatus


@pytest.mark.parametrize(
    ("loss", "message"),
    [(float("nan"), r"step 3 is nan on process 0;"), (131072.0, r"step 3 is not finite on another process than 0;")],
)
def test_a_scaled_loss_is_not_shown(loss: float, message: str) -> None:
    module = LightningModule()
    module.trainer = Trainer(accelerator="cpu", barebones=True)
    check_batch(module, BatchStatus(2, loss=131072.0, loss_sum=2.0, num_tokens=1.0, shown={}))
    with pytest.raises(FloatingPointError, match=message):
        check_batch(module, BatchStatus(3, loss=loss, loss_sum=float("nan"), num_tokens=1.0, shown={}))
