import torch

from synth2_lightning.modules.losses import source_losses


def test_source_losses_divide_by_their_own_tokens() -> None:
    losses = source_losses(torch.tensor([4.0, 2.0, 4.0]), torch.tensor([1, 2, 1]), ("a", "b", "a"))
    assert {name: float(value) for name, value in losses.items()} == {"a": 4.0, "b": 1.0}
