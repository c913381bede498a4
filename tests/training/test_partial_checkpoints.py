import pickle
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from synth2_lightning.training.partial_checkpoints import check_weight_names, exclude_frozen

TRAINED = {"head.weight", "head.bias", "counts.running_mean", "counts.running_var", "counts.num_batches_tracked"}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        exclude_frozen(self, ("encoder",))
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)
        self.encoder = nn.BatchNorm1d(2, affine=False)  # frozen by its name only
        self.encoder.register_buffer("scratch", torch.zeros(1), persistent=False)
        self.norm = nn.BatchNorm1d(2).requires_grad_(False)
        self.head = nn.Linear(2, 3)
        self.counts = nn.BatchNorm1d(2, affine=False)


def test_frozen_parameters_and_their_buffers_are_excluded() -> None:
    assert set(Model().state_dict()) == TRAINED
    assert set(nn.ModuleList([Model()]).state_dict()) == {f"0.{name}" for name in TRAINED}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("assign", [True, False])
def test_loading_keeps_the_frozen_weights_that_are_present(strict: bool, assign: bool) -> None:
    saved, model = Model().state_dict(), Model()
    for frozen in (model.scale, model.encoder.running_mean, model.norm.weight):
        assert frozen is not None
        frozen.data.fill_(7)
    missing, unexpected = model.load_state_dict(saved, strict=strict, assign=assign)
    assert missing == unexpected == []
    assert torch.equal(model.head.weight, saved["head.weight"])
    assert model.scale == 7
    assert (model.norm.weight == 7).all()
    assert model.encoder.running_mean is not None
    assert (model.encoder.running_mean == 7).all()


@pytest.mark.parametrize("is_pickled", [True, False])
def test_copies_exclude_frozen_weights_too(is_pickled: bool) -> None:
    original = Model()
    other = pickle.loads(pickle.dumps(original)) if is_pickled else deepcopy(original)
    other.norm.weight.fill_(7)
    other.load_state_dict(original.state_dict())
    assert set(other.state_dict()) == TRAINED
    assert (other.norm.weight == 7).all()
    assert (original.norm.weight == 1).all()


def test_an_average_of_the_model_loads_strictly_what_it_saved() -> None:
    saved = AveragedModel(Model()).state_dict()
    assert set(saved) == {"n_averaged", *(f"module.{name}" for name in TRAINED)}
    saved["module.head.bias"] += 1
    other = AveragedModel(Model())
    model = other.module
    assert isinstance(model, Model)
    model.norm.weight.fill_(7)
    other.load_state_dict(saved)
    assert torch.equal(model.head.bias, saved["module.head.bias"])
    assert (model.norm.weight == 7).all()


def test_weights_of_another_model_are_refused() -> None:
    state = Model().state_dict()
    check_weight_names(Model(), state)
    state["tail.weight"] = state.pop("head.weight")
    with pytest.raises(ValueError, match=r"Model.*1 .*head\.weight.*1 .*tail\.weight"):
        check_weight_names(Model(), state)
