from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.multiprocessing.spawn import start_processes

from synth2_lightning.nn.moving_codebook import MovingCodebook, spherical


def clusters(num_vectors: int = 512, seed: int = 0) -> Tensor:
    """Return vectors, nine of ten at one place of the sphere, and the others at seven more."""
    generator = torch.Generator().manual_seed(seed)
    places = spherical(torch.randn(8, 3, generator=torch.Generator().manual_seed(9)))
    which = torch.randint(1, 8, (num_vectors,), generator=generator)
    which[torch.rand(num_vectors, generator=generator) < 0.9] = 0
    return places[which] + 0.01 * torch.randn(num_vectors, 3, generator=generator)


def test_codes_find_rare_places() -> None:
    torch.manual_seed(0)
    codebook = MovingCodebook(num_codes=16, dim=3, decay=0.9)
    for step in range(60):
        codebook(clusters(seed=step))
    codebook.eval()
    codes, ids = codebook(clusters(seed=100))
    assert (codes - spherical(clusters(seed=100))).abs().max() < 0.1
    assert ids.unique().numel() >= 8


def test_every_vector_gets_its_nearest_code() -> None:
    codebook = MovingCodebook(num_codes=8, dim=3)
    codebook(clusters())
    codebook.eval()
    vectors = torch.randn(32, 3)
    codes, ids = codebook(vectors)
    # The nearest code is the same for vectors on the sphere and off it.
    expected = torch.stack([(codebook.embed - vector).norm(dim=1).argmin() for vector in vectors])
    assert torch.equal(ids, expected)
    assert torch.allclose(codes, codebook.embed[expected], atol=1e-6)
    assert torch.allclose(codes.square().mean(1), torch.ones(32), atol=1e-5)


def test_the_gradient_passes_as_if_nothing_was_replaced() -> None:
    codebook = MovingCodebook(num_codes=4, dim=3)
    vectors = torch.randn(16, 3, requires_grad=True)
    codes, _ = codebook(vectors)
    (codes * torch.arange(3.0)).sum().backward()
    same = vectors.detach().requires_grad_()
    (spherical(same) * torch.arange(3.0)).sum().backward()
    assert vectors.grad is not None
    assert same.grad is not None
    assert torch.allclose(vectors.grad, same.grad)


def test_vectors_pass_as_they_are_until_the_codes_start() -> None:
    codebook = MovingCodebook(num_codes=4, dim=3, num_free_batches=2)
    vectors = clusters()
    for _ in range(2):
        codes, ids = codebook(vectors)
        assert torch.equal(codes, spherical(vectors))
        assert not ids.any()
    codebook.eval()
    assert torch.equal(codebook(vectors)[0], spherical(vectors))  # evaluation does not initialize the codes
    codebook.train()
    codes, ids = codebook(vectors)
    assert not torch.allclose(codes, spherical(vectors))
    assert ids.any()


def test_codes_move_in_training_only() -> None:
    codebook = MovingCodebook(num_codes=4, dim=3)
    codebook(clusters())
    before = codebook.embed.clone()
    codebook.eval()
    codebook(clusters(seed=1) + 1)
    assert torch.equal(codebook.embed, before)
    codebook.train()
    codebook(clusters(seed=1) + 1)
    assert not torch.equal(codebook.embed, before)


def test_a_code_becomes_the_mean_direction_of_what_chooses_it() -> None:
    codebook = MovingCodebook(num_codes=1, dim=3, decay=0.5)
    vectors = torch.randn(100, 3) + 2
    for _ in range(30):
        codebook(vectors)
    assert torch.allclose(codebook.embed[0], spherical(spherical(vectors).mean(0, keepdim=True))[0], atol=1e-4)


def test_unused_codes_start_again_at_vectors_of_the_batch() -> None:
    codebook = MovingCodebook(num_codes=8, dim=3, decay=0.5, revival_threshold=0.5)
    codebook(clusters())
    codebook.embed[3] = 1e3
    codebook.embed_avg[3] = 1e3 * codebook.cluster_size[3]
    vectors = clusters(seed=1)
    for _ in range(12):
        codebook(vectors)
    assert codebook.embed.abs().max() < 50
    assert codebook.num_revived > 0


def test_revivals_are_counted() -> None:
    codebook = MovingCodebook(num_codes=4, dim=3, decay=0.0, revival_threshold=0.5)
    codebook(clusters())
    codebook.embed.copy_(torch.tensor([1.0, 0, 0]).expand(4, 3))  # all vectors are assigned to the first of equal codes
    before = codebook.num_revived
    codebook(clusters())
    assert codebook.num_revived == before + 3
    codebook.eval()
    codebook(clusters())
    assert codebook.num_revived == before + 3


def test_fewer_vectors_than_codes_will_do() -> None:
    codebook = MovingCodebook(num_codes=32, dim=3)
    codes, ids = codebook(torch.randn(5, 3))
    assert codes.isfinite().all()
    assert ids.shape == (5,)


def test_the_state_is_saved() -> None:
    codebook, other = MovingCodebook(num_codes=8, dim=3), MovingCodebook(num_codes=8, dim=3)
    codebook(clusters())
    other.load_state_dict(codebook.state_dict())
    codebook.eval()
    other.eval()
    assert torch.equal(codebook(clusters())[1], other(clusters())[1])


def test_decay_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"MovingCodebook\.decay.* 1\.0"):
        MovingCodebook(num_codes=8, dim=3, decay=1.0)
    with pytest.raises(ValueError, match=r"num_free_batches.* -1"):
        MovingCodebook(num_codes=8, dim=3, num_free_batches=-1)


def follow_in_process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(rank)
    codebook = MovingCodebook(num_codes=8, dim=3, decay=0.9)
    for step in range(5):
        codebook(clusters(num_vectors=64, seed=2 * step + rank))
    torch.save(codebook.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_keep_one_codebook(tmp_path: Path) -> None:
    start_processes(follow_in_process, (str(tmp_path),), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_loaded_state_decides_whether_codes_are_used() -> None:
    started, new = MovingCodebook(num_codes=4, dim=3), MovingCodebook(num_codes=4, dim=3)
    started(clusters())
    new.eval()
    assert not new(clusters())[1].any()
    new.load_state_dict(started.state_dict())
    assert torch.equal(new(clusters())[0], started.eval()(clusters())[0])


def test_vectors_that_are_not_finite_are_left_to_the_check_of_the_loss() -> None:
    codebook = MovingCodebook(num_codes=4, dim=3)
    codebook(clusters())
    codebook.cluster_size.zero_()  # all codes are re-initialized
    assert codebook(torch.full((8, 3), torch.nan))[0].isnan().all()
    new = MovingCodebook(num_codes=4, dim=3)
    assert new(torch.full((8, 3), torch.nan))[0].isnan().all()
