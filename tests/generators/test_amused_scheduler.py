import pytest
import torch
from diffusers import AmusedScheduler
from torch import Generator, Tensor

from synth2_lightning.generators import amused_scheduler
from synth2_lightning.generators.amused_scheduler import amused_mask_counts, sample_step

MASK = 32


def generators() -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in (3, 4, 5)]


def sample(num_steps: int, schedule: str = "cosine") -> Tensor:
    noises, logits = generators(), torch.randn(num_steps, 3, 32, 16, generator=Generator().manual_seed(0))
    ids = torch.full((3, 16), MASK)
    counts = [*amused_mask_counts(16, num_steps, schedule), None]  # type: ignore[arg-type]  # the parameter of the test
    for step, (number, temperature) in enumerate(zip(counts, torch.linspace(2, 0, num_steps), strict=True)):
        ids = sample_step(logits[step], ids, noises, MASK, number, temperature)
    return ids


def sample_by_diffusers(num_steps: int, schedule: str) -> Tensor:
    logits = torch.randn(num_steps, 3, 32, 16, generator=Generator().manual_seed(0))
    images = []
    for row, noise in enumerate(generators()):
        scheduler = AmusedScheduler(MASK, masking_schedule=schedule)
        scheduler.set_timesteps(num_steps)
        ids = torch.full((1, 4, 4), MASK)
        for step, timestep in enumerate(scheduler.timesteps):
            known = logits[step, row].view(1, 32, 4, 4)
            ids = scheduler.step(known, timestep, ids, generator=noise).prev_sample
        images.append(ids.flatten(1))
    return torch.cat(images)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 16, 20])
def test_each_image_has_the_tokens_that_diffusers_samples_alone(num_steps: int, schedule: str) -> None:
    assert torch.equal(sample(num_steps, schedule), sample_by_diffusers(num_steps, schedule))


def test_chunks_have_the_same_tokens_as_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sample(6)
    for limit in (1, 2 * 32 * 16):
        monkeypatch.setattr(amused_scheduler, "MAX_LOGITS", limit)
        assert torch.equal(sample(6), whole)
