from typing import Any

import pytest
import torch
from torch import Tensor

from synth2_lightning.nn.maskgit import MaskGit


def make_network(num_levels: int = 2, **arguments: Any) -> MaskGit:
    torch.manual_seed(0)
    return MaskGit(6, 16, num_levels, (2, 4), text_dim=5, width=16, depth=2, num_heads=2, **arguments).eval()


def make_text(batch: int = 3, length: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, length, 5, generator=generator), torch.ones(batch, length, dtype=torch.bool)


def hide(*positions: int, batch: int = 3) -> Tensor:
    mask = torch.zeros(batch, 8, dtype=torch.bool)
    mask[:, list(positions)] = True
    return mask


def test_masked_embeddings_have_no_effect() -> None:
    network, memory = make_network(), make_network().encode_text(*make_text())
    embeddings = torch.randn(3, 8, 6)
    changed = embeddings.clone()
    changed[:, 2] *= -2  # LayerNorm would remove a constant
    assert torch.equal(network(embeddings, hide(2), memory), network(changed, hide(2), memory))
    assert not torch.allclose(network(embeddings, hide(3), memory), network(changed, hide(3), memory))


def test_positions_differ_where_all_tokens_are_masked() -> None:
    network = make_network()
    states = network(torch.zeros(3, 8, 6), hide(*range(8)), network.encode_text(*make_text()))
    distances = torch.cdist(states[0], states[0]) + torch.eye(8)
    assert distances.min() > 1e-3


def test_padding_of_the_text_changes_nothing() -> None:
    network = make_network()
    text, mask = make_text()
    longer = torch.cat([text, torch.randn(3, 2, 5)], dim=1), torch.cat([mask, torch.zeros(3, 2, dtype=torch.bool)], 1)
    embeddings = torch.randn(3, 8, 6)
    short, padded = (network(embeddings, hide(1), network.encode_text(*given)) for given in ((text, mask), longer))
    torch.testing.assert_close(short, padded)


def test_dropped_texts_are_all_the_null_text() -> None:
    network = make_network()
    text, mask = make_text()
    dropped = network.encode_text(text, mask, torch.tensor([True, False, True]))
    states = network(torch.zeros(3, 8, 6), hide(0), dropped)
    assert torch.equal(states[0], states[2])
    kept = network(torch.zeros(3, 8, 6), hide(0), network.encode_text(text, mask))
    assert torch.equal(states[1], kept[1])
    assert not torch.allclose(states[0], kept[0])
    with torch.no_grad():
        network.null_text_embedding.add_(1)
    moved = network(torch.zeros(3, 8, 6), hide(0), network.encode_text(text, mask, torch.tensor([True, False, True])))
    assert not torch.allclose(moved[0], states[0])


def test_heads_of_later_levels_depend_on_the_codes_before() -> None:
    network = make_network()
    states = torch.randn(4, 16)
    none = torch.zeros(4, 0, dtype=torch.long)
    assert network.level_logits(states, none).shape == (4, 16)
    zeros, ones = torch.zeros(4, 1, dtype=torch.long), torch.ones(4, 1, dtype=torch.long)
    assert not torch.allclose(network.level_logits(states, zeros), network.level_logits(states, ones))


def test_every_parameter_is_reached_by_the_loss() -> None:
    network = make_network().train()
    memory = network.encode_text(*make_text(), torch.tensor([True, False, False]))
    states = network(torch.randn(3, 8, 6), hide(1, 2), memory)
    logits = [network.level_logits(states, torch.zeros(3, 8, level, dtype=torch.long)) for level in range(2)]
    torch.autograd.backward(torch.stack(logits).square().sum())
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_one_text_for_all_images_equals_a_copy_for_each() -> None:
    network, embeddings = make_network(), torch.randn(3, 8, 6)
    text, mask = make_text(batch=1)
    for length in (4, 1):
        one = network.encode_text(text[:, :length], mask[:, :length])
        copies = network.encode_text(text[:, :length].expand(3, -1, -1), mask[:, :length].expand(3, -1))
        torch.testing.assert_close(network(embeddings, hide(1), one), network(embeddings, hide(1), copies))


def test_it_is_built_again_from_its_sizes() -> None:
    network = make_network(dropout=0.25)
    again = MaskGit(**network.sizes)
    again.load_state_dict(network.state_dict())
    assert again.sizes == network.sizes


@pytest.mark.parametrize("setting", [{"num_heads": 3}, {"num_heads": 0}, {"depth": 0}, {"width": 0}])
def test_sizes_that_make_no_network_are_refused(setting: dict[str, Any]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=rf"{name}={value}.*multiple"):
        MaskGit(6, 16, 1, (2, 2), text_dim=5, **({"width": 16} | setting))


def test_states_of_the_first_tokens_are_those_among_all() -> None:
    network, memory = make_network(), make_network().encode_text(*make_text())
    embeddings = torch.randn(3, 8, 6)
    some = network(embeddings, hide(1), memory, num_outputs=5)
    torch.testing.assert_close(some, network(embeddings, hide(1), memory)[:, :5])


def test_a_single_word_is_read_as_one_of_many_with_the_others_masked() -> None:
    network, embeddings = make_network(), torch.randn(3, 8, 6)
    text, mask = make_text()
    mask[:, 1:] = False
    padded = network(embeddings, hide(1), network.encode_text(text, mask))
    single = network.encode_text(text[:, :1], mask[:, :1])
    torch.testing.assert_close(network(embeddings, hide(1), single), padded)
    torch.testing.assert_close(network.train()(embeddings, hide(1), single), padded)


def test_checkpointed_layers_have_equal_gradients_and_keep_less() -> None:
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept[-1] += tensor.numel()
        return tensor

    gradients = []
    for checkpoint_activations in (False, True):
        network = make_network(dropout=0.5, checkpoint_activations=checkpoint_activations).train()
        assert "checkpoint_activations" not in network.sizes  # weights and outputs do not depend on it
        torch.manual_seed(1)
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            states = network(torch.randn(3, 8, 6), hide(1, 2), network.encode_text(*make_text()))
        torch.autograd.backward(network.level_logits(states, torch.zeros(3, 8, 0, dtype=torch.long)).square().sum())
        gradients.append({name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None})
    plain, recomputed = gradients
    assert plain.keys() == recomputed.keys()
    assert all(torch.equal(gradient, recomputed[name]) for name, gradient in plain.items())
    assert kept[1] < kept[0] / 2


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("checkpoint_activations", [False, True])
def test_compiled_layers_share_one_graph(checkpoint_activations: bool, graph_counts: dict[str, int]) -> None:
    results = []
    for is_compiled in (False, True):
        network = make_network(checkpoint_activations=checkpoint_activations).train()
        names = list(network.state_dict())
        if is_compiled:
            network.compile_layers()
        states = network(torch.ones(3, 8, 6), hide(1, 2), network.encode_text(*make_text()))
        states.square().sum().backward()
        assert list(network.state_dict()) == names
        results.append([states, *(weight.grad for weight in network.layers.parameters())])
    assert graph_counts["unique_graphs"] == 1
    torch.testing.assert_close(results[0], results[1])
