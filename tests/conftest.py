"""What every test relies on: no network, fixed seeds, one thread."""

import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    import torch

    # Two test processes share two cores: more threads each would only fight.
    torch.set_num_threads(1)
    torch.manual_seed(0)
