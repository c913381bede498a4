import torch

from synth2_lightning.metrics.codebook import CodebookPerplexity, CodebookUsage


def test_perplexity_of_equally_frequent_codes_is_their_number() -> None:
    perplexity = CodebookPerplexity(codebook_size=16)
    perplexity.update(torch.tensor([[[0], [1]], [[2], [3]]]))
    assert torch.isclose(perplexity.compute(), torch.tensor(4.0))


def test_perplexity_is_of_all_batches_not_their_mean() -> None:
    perplexity = CodebookPerplexity(codebook_size=16)
    perplexity.update(torch.zeros(2, 4, 1, dtype=torch.long))
    perplexity.update(torch.ones(2, 4, 1, dtype=torch.long))
    assert torch.isclose(perplexity.compute(), torch.tensor(2.0))
    perplexity.reset()
    perplexity.update(torch.zeros(2, 4, 1, dtype=torch.long))
    assert torch.isclose(perplexity.compute(), torch.tensor(1.0))


def test_usage_is_of_all_batches() -> None:
    usage = CodebookUsage(codebook_size=16)
    usage.update(torch.tensor([[[0], [1]], [[0], [0]]]))
    assert float(usage.compute()) == 2 / 16
    usage.update(torch.tensor([[[15]]]))
    assert float(usage.compute()) == 3 / 16
