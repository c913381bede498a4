import math
from itertools import pairwise

import pytest
import torch

from synth2_lightning.nn.masking import count_masked, gumbel, halton_order, sample_categorical, sample_mask


def test_masks_follow_the_cosine_of_a_uniform_number() -> None:
    mask = sample_mask(torch.rand(20_000, 65))
    fractions = mask.float().mean(1)
    assert mask.any(1).all()
    assert fractions.mean() == pytest.approx(2 / math.pi, abs=0.01)  # the mean of cos(pi u / 2)
    assert (fractions > math.cos(math.pi / 4)).float().mean() == pytest.approx(0.5, abs=0.02)  # the median: u = 1/2


def test_every_position_is_masked_equally_often() -> None:
    rates = sample_mask(torch.rand(20_000, 17)).float().mean(0)
    assert (rates - rates.mean()).abs().max() < 0.02


def test_tokens_with_the_smallest_numbers_are_masked() -> None:
    uniform = torch.tensor([[0.0, 0.3, 0.1, 0.2], [0.999, 0.3, 0.1, 0.2]])
    assert sample_mask(uniform).tolist() == [[True, True, True], [False, True, False]]


@pytest.mark.parametrize(("num_tokens", "num_steps"), [(64, 1), (64, 12), (256, 24), (16, 16), (49, 48)])
def test_every_step_reveals_a_token_and_the_last_one_the_rest(num_tokens: int, num_steps: int) -> None:
    hidden = (num_tokens, *count_masked(num_tokens, num_steps))
    assert len(hidden) == num_steps + 1
    assert hidden[-1] == 0
    assert all(before > after for before, after in pairwise(hidden))


def test_the_schedule_is_a_cosine() -> None:
    assert count_masked(256, 8)[3] == math.floor(256 * math.cos(math.pi / 4))


@pytest.mark.parametrize("num_steps", [0, 65])
def test_impossible_numbers_of_steps_are_refused(num_steps: int) -> None:
    with pytest.raises(ValueError, match=rf"64 tokens.* {num_steps} steps.*1 to 64"):
        count_masked(64, num_steps)


def test_gumbel_noise_has_its_mean_and_no_infinity() -> None:
    uniform = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    assert gumbel(uniform).mean() == pytest.approx(0.5772, abs=0.02)
    assert gumbel(torch.tensor([0.0, 1.0 - 2**-24])).isfinite().all()


def test_codes_are_sampled_by_their_probabilities() -> None:
    logits = torch.tensor([0.5, 1e-30, 0.3, 0.2]).log()
    logits[1] = -torch.inf
    uniform = torch.rand(50_000, generator=torch.Generator().manual_seed(0))
    drawn, log_probabilities = sample_categorical(logits.expand(50_000, 4), uniform)
    fractions = drawn.bincount(minlength=4) / 50_000
    torch.testing.assert_close(fractions, torch.tensor([0.5, 0.0, 0.3, 0.2]), atol=0.01, rtol=0)
    torch.testing.assert_close(log_probabilities, logits[drawn])


def test_codes_of_probability_zero_are_never_sampled() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    assert sample_categorical(logits, torch.tensor([0.0]))[0].item() == 1
    assert sample_categorical(logits, torch.tensor([1.0 - 2**-24]))[0].item() == 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 4), (7, 7), (16, 8)])
def test_halton_order_names_every_cell_once(height: int, width: int) -> None:
    assert halton_order(height, width).sort().values.tolist() == list(range(height * width))


def test_halton_order_spreads_evenly_from_the_start() -> None:
    first = halton_order(16, 16)[:16]
    quarters = (first // 16 // 8) * 2 + first % 16 // 8
    assert quarters.bincount(minlength=4).min() >= 3
