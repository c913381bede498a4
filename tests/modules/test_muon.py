import pytest
import timm.optim.muon
import torch

from synth2_lightning.modules.muon import Muon


def update(optimizer_class: type[timm.optim.Muon], dtypes: list[torch.dtype]) -> torch.Tensor:
    """The change of a matrix by one step; notes the precision that the updates were made orthogonal in."""
    original = timm.optim.muon.zeropower_via_newtonschulz

    def note(*args: object, **kwargs: object) -> torch.Tensor:
        made: torch.Tensor = original(*args, **kwargs)
        dtypes.append(made.dtype)
        return made

    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(6, 9))
    weight.grad = torch.randn(6, 9)
    optimizer = optimizer_class([weight], lr=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm.optim.muon, "zeropower_via_newtonschulz", note)
        optimizer.step()
        assert timm.optim.muon.zeropower_via_newtonschulz is note
    return weight.detach()


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16)],
    ids=["without", "with"],
)
def test_updates_are_made_in_float32_where_bfloat16_is_emulated(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    dtypes: list[torch.dtype] = []
    ours = update(Muon, dtypes)
    assert dtypes == [expected]
    reference = update(timm.optim.Muon, dtypes)
    assert dtypes == [expected, torch.bfloat16]
    assert torch.equal(ours, reference) == (expected == torch.bfloat16)
    torch.testing.assert_close(ours, reference, atol=0.01 * ours.abs().max().item(), rtol=0.05)
