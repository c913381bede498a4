from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from synth2_lightning.nn import parallel_decoding
from synth2_lightning.nn.maskgit import MaskGit, TextKeyValues
from synth2_lightning.nn.parallel_decoding import (
    MaskGitSampling,
    decode_in_parallel,
    noise_shape,
)
from synth2_lightning.nn.unmasking import ConfidenceOrder, HaltonOrder, UnmaskingOrder

CODES = torch.randn(2, 16, 6, generator=torch.Generator().manual_seed(3))


def embed(ids: Tensor) -> Tensor:
    return CODES[0][ids[..., 0]] + CODES[1][ids[..., 1]]


class DecodingSetup:
    """Small network with text embeddings and fixed noise."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network = MaskGit(6, 16, 2, (4, 4), text_dim=5, width=16, depth=2, num_heads=2).eval()
        self.text = torch.randn(3, 4, 5)
        self.uniform = torch.rand(3, 24, 16, 3)

    def memory(self, rows: slice = slice(None), is_null: bool = False) -> TextKeyValues:
        text = self.text[rows]
        mask = torch.ones(text.shape[:2], dtype=torch.bool)
        with torch.no_grad():
            return self.network.encode_text(text, mask, torch.full((len(text),), is_null))

    def draw(self, settings: MaskGitSampling, order: UnmaskingOrder, rows: slice = slice(None)) -> Tensor:
        uniform = self.uniform[rows, : settings.num_steps]
        memories = self.memory(rows), self.memory(slice(1), is_null=True) if settings.is_guided else None
        return decode_in_parallel(self.network, embed, *memories, uniform, settings, order)


@pytest.mark.parametrize("order", [ConfidenceOrder(), HaltonOrder()])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"guidance": (0.0, 3.0)},
        {"guidance": (2.0, 2.0), "guidance_every": 2, "full_every": 3},
    ],
)
def test_an_image_does_not_depend_on_its_batch(order: UnmaskingOrder, settings: dict[str, Any]) -> None:
    setup, sampling = DecodingSetup(), MaskGitSampling(num_steps=6, **settings)
    together = setup.draw(sampling, order)
    alone = torch.cat([setup.draw(sampling, order, slice(row, row + 1)) for row in range(3)])
    assert torch.equal(together, alone)
    assert len(set(together.flatten().tolist())) > 4


def test_one_step_is_the_categorical_of_the_network_itself() -> None:
    setup = DecodingSetup()
    drawn = setup.draw(MaskGitSampling(num_steps=1, top_k=1), HaltonOrder())
    states = setup.network(torch.zeros(3, 16, 6), torch.ones(3, 16, dtype=torch.bool), setup.memory())
    first = setup.network.level_logits(states, torch.zeros(3, 16, 0, dtype=torch.long)).argmax(-1, keepdim=True)
    second = setup.network.level_logits(states, first).argmax(-1, keepdim=True)
    assert torch.equal(drawn, torch.cat([first, second], dim=-1))


def test_the_confidence_is_that_among_all_codes() -> None:
    seen = []

    class Recorded(ConfidenceOrder):
        def rank(self, log_probabilities: Tensor, *arguments: Any) -> Tensor:
            seen.append(log_probabilities)
            return super().rank(log_probabilities, *arguments)

    setup = DecodingSetup()
    drawn = setup.draw(MaskGitSampling(num_steps=1, top_k=1), Recorded())
    states = setup.network(torch.zeros(3, 16, 6), torch.ones(3, 16, dtype=torch.bool), setup.memory())
    levels = [setup.network.level_logits(states, drawn[..., :level]).log_softmax(-1) for level in range(2)]
    expected = sum(level.gather(-1, drawn[..., [number]]).squeeze(-1) for number, level in enumerate(levels))
    torch.testing.assert_close(seen[0], expected)


def test_guidance_moves_away_from_the_null_text() -> None:
    setup, order = DecodingSetup(), HaltonOrder()
    settings = MaskGitSampling(num_steps=1, guidance=(2.0, 2.0), top_k=1)
    states = [
        setup.network(torch.zeros(3, 16, 6), torch.ones(3, 16, dtype=torch.bool), setup.memory(is_null=is_null))
        for is_null in (False, True)
    ]
    conditional, unconditional = (
        setup.network.level_logits(s, torch.zeros(3, 16, 0, dtype=torch.long)) for s in states
    )
    expected = (3 * conditional - 2 * unconditional).argmax(-1)
    assert torch.equal(setup.draw(settings, order)[..., 0], expected)
    with pytest.raises(ValueError, match="null_text"):
        decode_in_parallel(setup.network, embed, setup.memory(), None, setup.uniform[:, :1], settings, order)


def test_later_steps_get_the_revealed_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    setup, seen = DecodingSetup(), []
    forward = setup.network.forward

    def spy(embeddings: Tensor, mask: Tensor, memory: TextKeyValues, **caches: Any) -> Tensor:
        seen.append((embeddings.clone(), mask.clone()))
        return forward(embeddings, mask, memory, **caches)

    monkeypatch.setattr(setup.network, "forward", spy)
    ids = setup.draw(MaskGitSampling(num_steps=4), ConfidenceOrder())
    assert [int(mask.sum(1)[0]) for _, mask in seen] == [16, 14, 11, 6]
    for embeddings, mask in seen:
        torch.testing.assert_close(embeddings[~mask], embed(ids)[~mask])


def test_halton_order_reveals_the_same_places_for_any_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    setup, seen = DecodingSetup(), []
    forward = setup.network.forward

    def spy(embeddings: Tensor, mask: Tensor, memory: TextKeyValues, **caches: Any) -> Tensor:
        seen.append(mask.clone())
        return forward(embeddings, mask, memory, **caches)

    monkeypatch.setattr(setup.network, "forward", spy)
    setup.draw(MaskGitSampling(num_steps=4), HaltonOrder())
    first = HaltonOrder().start((4, 4))[:2]
    assert (~seen[1][0]).nonzero().squeeze(1).tolist() == first.sort().values.tolist()
    assert all(torch.equal(row, hidden[0]) for hidden in seen for row in hidden)


def spy_on_sizes(setup: DecodingSetup, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Return a list that receives the kind of text and the number of tokens of each forward pass."""
    sizes: list[tuple[str, int]] = []
    forward = setup.network.forward

    def spy(embeddings: Tensor, mask: Tensor, text: TextKeyValues, **arguments: Any) -> Tensor:
        sizes.append(("text" if len(text) > 1 else "null", embeddings.shape[1]))
        return forward(embeddings, mask, text, **arguments)

    monkeypatch.setattr(setup.network, "forward", spy)
    return sizes


def test_unconditional_states_are_computed_in_some_guided_steps_only(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = DecodingSetup()
    sizes = spy_on_sizes(setup, monkeypatch)
    rising = MaskGitSampling(num_steps=5, guidance=(0.0, 2.0))
    text, both = [("text", 16)], [("text", 16), ("null", 16)]
    setup.draw(rising, ConfidenceOrder())
    assert sizes == [*text, *both * 4]
    sizes.clear()
    setup.draw(replace(rising, guidance_every=2), ConfidenceOrder())
    assert sizes == [*text, *both, *text, *both, *text]
    sizes.clear()
    setup.draw(replace(rising, guidance_every=2), HaltonOrder())  # there are no states for the tokens of later steps
    assert sizes == [*text, *both * 4]


@pytest.mark.parametrize("order", [ConfidenceOrder(), HaltonOrder()])
@pytest.mark.parametrize("full_every", [1, 4])
def test_unconditional_states_of_images_without_tokens_are_computed_once(
    order: UnmaskingOrder, full_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, settings = DecodingSetup(), MaskGitSampling(num_steps=4, guidance=(2.0, 2.0), full_every=full_every)
    copies = setup.memory(is_null=True)  # one per image: computed for each
    expected = decode_in_parallel(setup.network, embed, setup.memory(), copies, setup.uniform[:, :4], settings, order)
    rows, forward = [], setup.network.forward

    def spy(embeddings: Tensor, mask: Tensor, text: TextKeyValues, **arguments: Any) -> Tensor:
        if len(text) == 1:
            rows.append(len(embeddings))
        return forward(embeddings, mask, text, **arguments)

    monkeypatch.setattr(setup.network, "forward", spy)
    assert torch.equal(setup.draw(settings, order), expected)
    assert rows == [1, 3, 3, 3]
    rows.clear()
    setup.draw(replace(settings, guidance=(0.0, 2.0)), order)  # tokens are unmasked before guidance begins
    assert rows == [3, 3, 3]


def test_steps_between_add_the_last_difference_at_the_scale_of_their_own() -> None:
    setup = DecodingSetup()
    for layer in setup.network.layers:  # states of masked tokens are equal in both steps, except those of the text
        layer.get_parameter("self_attn.to_out.weight").data.zero_()
    settings = MaskGitSampling(num_steps=2, guidance=(1.0, 3.0), top_k=1)
    expected = setup.draw(settings, ConfidenceOrder(noise=0.0))
    assert torch.equal(setup.draw(replace(settings, guidance_every=2), ConfidenceOrder(noise=0.0)), expected)
    assert not torch.equal(setup.draw(replace(settings, guidance=(1.0, 0.0)), ConfidenceOrder(noise=0.0)), expected)


@pytest.mark.parametrize(("order", "candidates"), [(ConfidenceOrder(), (14, 11)), (HaltonOrder(), (3, 5))])
def test_steps_between_full_ones_compute_candidates_and_what_the_last_step_unmasked(
    order: UnmaskingOrder, candidates: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = DecodingSetup()
    sizes = spy_on_sizes(setup, monkeypatch)
    ids = setup.draw(MaskGitSampling(num_steps=4, full_every=3), order)  # unmask 2, 3, 5 and 6 tokens
    assert sizes == [("text", number) for number in (16, candidates[0] + 2, candidates[1] + 3, 16)]
    assert len(set(ids.flatten().tolist())) > 4
    # The first unconditional states are of all tokens, because there are no keys and values yet.
    setup.draw(MaskGitSampling(num_steps=4, full_every=4, guidance=(0.0, 2.0)), order)
    assert sizes[4:7] == [("text", 16), ("text", candidates[0] + 2), ("null", 16)]
    assert sizes[7:] == [(kind, number) for number in (candidates[1] + 3, 11) for kind in ("text", "null")]


def test_unconditional_keys_and_values_are_renewed_for_all_tokens_unmasked_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup = DecodingSetup()
    sizes = spy_on_sizes(setup, monkeypatch)
    settings = MaskGitSampling(num_steps=4, guidance=(2.0, 2.0), guidance_every=2, full_every=4)
    setup.draw(settings, ConfidenceOrder())  # 16, 14, 11 and 6 tokens are masked
    first, second = [("text", 16), ("null", 16)], [("text", 14 + 2)]
    assert sizes == [*first, *second, ("text", 11 + 3), ("null", 11 + 5), ("text", 6 + 5)]


def test_unconditional_states_that_full_steps_do_not_compute_are_full_when_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup = DecodingSetup()
    sizes = spy_on_sizes(setup, monkeypatch)
    setup.draw(MaskGitSampling(num_steps=4, guidance=(0.0, 2.0), guidance_every=2, full_every=2), ConfidenceOrder())
    assert sizes == [("text", 16), ("text", 14 + 2), ("null", 16), ("text", 16), ("text", 6 + 5), ("null", 16)]


def test_steps_between_full_ones_equal_full_ones_where_no_other_token_has_changed() -> None:
    setup, settings = DecodingSetup(), MaskGitSampling(num_steps=2, top_k=1)
    for layer in setup.network.layers[1:]:
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
    # Keys and values of the only layer with weights depend on the token itself, so that those in the cache are right.
    full = setup.draw(settings, HaltonOrder())
    kept = setup.draw(replace(settings, full_every=2), HaltonOrder())
    assert torch.equal(full, kept)


def test_chunks_of_candidates_have_the_same_tokens_and_bounded_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    setup, settings = DecodingSetup(), MaskGitSampling(num_steps=4)
    whole, rows = setup.draw(settings, ConfidenceOrder()), []
    level_logits = setup.network.level_logits

    def spy(states: Tensor, codes: Tensor) -> Tensor:
        rows.append(len(states))
        return level_logits(states, codes)

    monkeypatch.setattr(setup.network, "level_logits", spy)
    monkeypatch.setattr(parallel_decoding, "MAX_LOGITS_ON_CPU", 10 * 16)
    assert torch.equal(setup.draw(settings, ConfidenceOrder()), whole)
    assert max(rows) == 10


def test_values_go_linearly_from_the_first_step_to_the_last() -> None:
    settings = MaskGitSampling(guidance=(0.0, 4.0), temperature=(1.0, 0.5))
    assert [settings.at(progress) for progress in (0.0, 0.5, 1.0)] == [(0.0, 1.0), (2.0, 0.75), (4.0, 0.5)]
    assert settings.is_guided
    assert noise_shape(DecodingSetup().network, settings) == (12, 16, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_steps": 0},
        {"guidance": (-1.0, 0.0)},
        {"guidance_every": 0},
        {"full_every": 0},
        {"temperature": (1.0, 0.0)},
        {"temperature": (1.0, float("nan"))},
        {"guidance": (0.0, float("nan"))},
        {"top_k": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(
        ValueError, match=r"MaskGitSampling.*num_steps, guidance_every, full_every.*top_k.*guidance.*temperature"
    ):
        MaskGitSampling(**wrong)  # type: ignore[arg-type]
