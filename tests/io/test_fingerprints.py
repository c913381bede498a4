import torch
from torch import nn

from synth2_lightning.io.fingerprints import fingerprint_codebook, fingerprint_weights


def test_a_fingerprint_contains_the_name_and_the_sizes() -> None:
    assert fingerprint_codebook("vqgan", torch.zeros(512, 4), 64).startswith("vqgan-512:")
    assert fingerprint_codebook("clip", torch.zeros(1, 16, 4), 64).startswith("clip-16x1:")
    assert fingerprint_codebook("clip", torch.zeros(2, 16, 4), 64).startswith("clip-16x2:")


def test_a_fingerprint_is_of_the_values() -> None:
    codes = torch.randn(8, 3)
    assert fingerprint_codebook("a", codes, 64) == fingerprint_codebook("a", codes.mT.contiguous().mT, 64)
    assert fingerprint_codebook("a", codes.bfloat16(), 64) == fingerprint_codebook("a", codes.bfloat16().double(), 64)
    assert fingerprint_codebook("a", codes, 64) != fingerprint_codebook("a", codes + 1, 64)


def test_a_network_is_known_by_all_its_weights() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).bfloat16()
    before = fingerprint_weights("net", network)
    assert before == fingerprint_weights("net", network.requires_grad_(False))
    network.get_buffer("1.running_mean").add_(1)
    assert fingerprint_weights("net", network) != before


def test_fingerprints_of_codebooks_depend_on_their_input() -> None:
    codes = torch.zeros(4, 2)
    fingerprints = [
        fingerprint_codebook("a", codes, 64),
        fingerprint_codebook("a", codes, 128),
        fingerprint_codebook("a", codes, 64, (-1.0, 1.0)),
    ]
    assert len(set(fingerprints)) == 3
