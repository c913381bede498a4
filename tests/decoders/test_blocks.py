import pytest
from torch import Tensor, nn

from synth2_lightning.decoders.blocks import BlockWrapper, find_lm_blocks
from synth2_lightning.decoders.language_model import NewLanguageModel


class Doubler(nn.Module):
    kind = "full_attention"

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.num_calls = 0

    def forward(self, hidden_states: Tensor, scale: float = 1.0) -> Tensor:
        self.num_calls += 1
        doubled: Tensor = 2 * scale * self.linear(hidden_states).tanh()
        return doubled


def test_the_blocks_of_every_architecture_are_found(language_model: NewLanguageModel) -> None:
    blocks = find_lm_blocks(language_model.build(), 2)
    assert len(blocks) == 2
    assert all(len(list(block.parameters())) > 3 for block in blocks)


@pytest.mark.parametrize(
    ("num_blocks", "found"), [(3, r"0 lists of 3 modules.*none"), (2, r"2 lists of 2 modules.*0, 1")]
)
def test_ambiguous_blocks_are_refused(num_blocks: int, found: str) -> None:
    lists = nn.Sequential(*(nn.ModuleList([nn.Identity(), nn.Identity()]) for _ in range(2)))
    with pytest.raises(ValueError, match=rf"Sequential.*{found}.*PrefixDecoder.*checkpoint_activations"):
        find_lm_blocks(lists, num_blocks)


def test_a_wrapper_lets_attributes_through() -> None:
    wrapper = BlockWrapper(Doubler())
    assert wrapper.kind == "full_attention"
    assert wrapper.linear is wrapper.decoder_layer.linear
    with pytest.raises(AttributeError, match="color"):
        _ = wrapper.color
