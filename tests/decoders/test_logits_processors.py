import torch

from synth2_lightning.decoders.logits_processors import add_gumbel_noise, repetition_processors
from synth2_lightning.types import GenerationSettings


def test_the_largest_noisy_score_is_a_sample_of_the_softmax() -> None:
    torch.manual_seed(0)
    scores = torch.tensor([2.0, 0.0, -torch.inf, 1.0])
    words = add_gumbel_noise(torch.zeros(20000, 0, dtype=torch.long), scores.expand(20000, -1)).argmax(1)
    frequencies = words.bincount(minlength=4) / 20000
    torch.testing.assert_close(frequencies, scores.softmax(0), atol=0.015, rtol=0)
    assert frequencies[2] == 0


def test_repeated_tokens_are_those_after_the_prompt() -> None:
    settings = GenerationSettings(repetition_penalty=2.0, no_repeat_ngram_size=2)
    scores, ids = torch.ones(1, 5), torch.tensor([[0, 1, 3, 2, 3]])
    for processor in repetition_processors(settings, num_prompt=2):
        scores = processor(ids, scores)
    assert scores.tolist() == [[1.0, 1.0, -torch.inf, 0.5, 1.0]]
