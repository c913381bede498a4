import torch

from synth2_lightning.fingerprints import fingerprint_codebook


def test_a_fingerprint_says_the_name_and_the_sizes() -> None:
    assert fingerprint_codebook("vqgan", torch.zeros(512, 4)).startswith("vqgan-512:")
    assert fingerprint_codebook("clip", torch.zeros(1, 16, 4)).startswith("clip-16x1:")
    assert fingerprint_codebook("clip", torch.zeros(2, 16, 4)).startswith("clip-16x2:")


def test_a_fingerprint_is_of_the_values() -> None:
    codes = torch.randn(8, 3)
    assert fingerprint_codebook("a", codes) == fingerprint_codebook("a", codes.mT.contiguous().mT)
    assert fingerprint_codebook("a", codes.bfloat16()) == fingerprint_codebook("a", codes.bfloat16().double())
    assert fingerprint_codebook("a", codes) != fingerprint_codebook("a", codes + 1)
