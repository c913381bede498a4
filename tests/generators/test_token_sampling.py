import pytest
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from synth2_lightning.generators.token_sampling import TokenSampling, sample_next_tokens


@pytest.mark.parametrize("settings", [TokenSampling(temperature=0.7, top_k=5, top_p=0.8), TokenSampling(top_k=99)])
def test_tokens_have_the_frequencies_of_transformers(settings: TokenSampling) -> None:
    torch.manual_seed(0)
    logits = 2.0 * torch.randn(1, 12)
    warpers = LogitsProcessorList(
        [
            TemperatureLogitsWarper(settings.temperature),
            TopKLogitsWarper(settings.top_k),
            TopPLogitsWarper(settings.top_p),
        ]
    )
    expected = warpers(None, logits).softmax(1).squeeze(0)
    uniforms = (torch.arange(20_000) + 0.5) / 20_000
    drawn = sample_next_tokens(logits.expand(20_000, -1), uniforms, settings)
    torch.testing.assert_close(drawn.bincount(minlength=12) / 20_000, expected, atol=2e-4, rtol=0)


def test_one_token_is_the_most_probable_for_any_number() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.9]]).expand(3, -1)
    assert sample_next_tokens(logits, torch.tensor([0.0, 0.5, 0.9999999]), TokenSampling(top_k=1)).tolist() == [1, 1, 1]


def test_the_highest_number_never_leaves_what_is_kept() -> None:
    logits = torch.zeros(1, 1000)
    token = sample_next_tokens(logits, torch.tensor([1.0 - 2**-24]), TokenSampling(top_k=1000, top_p=0.5))
    order = logits.topk(1000).indices[0].tolist()
    assert order.index(int(token)) <= 500


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_new_tokens", 0, r"TokenSampling\.max_new_tokens.* 0"),
        ("top_k", 0, r"TokenSampling\.top_k.* 0"),
        ("temperature", 0.0, r"temperature.* 0\.0.*top_k"),
        ("temperature", float("nan"), r"temperature.* nan"),
        ("top_p", 1.5, r"TokenSampling\.top_p.* 1\.5"),
    ],
)
def test_invalid_sampling_settings_are_refused(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenSampling(**{name: value})  # type: ignore[arg-type]
