import torch

from synth2_lightning.decoders.logits_processors import add_gumbel_noise


def test_the_largest_noisy_score_is_a_sample_of_the_softmax() -> None:
    torch.manual_seed(0)
    scores = torch.tensor([2.0, 0.0, -torch.inf, 1.0])
    words = add_gumbel_noise(torch.zeros(20000, 0, dtype=torch.long), scores.expand(20000, -1)).argmax(1)
    frequencies = words.bincount(minlength=4) / 20000
    torch.testing.assert_close(frequencies, scores.softmax(0), atol=0.015, rtol=0)
    assert frequencies[2] == 0
