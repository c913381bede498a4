import pytest
import torch

from synth2_lightning.nn.discriminator import PatchDiscriminator, hinge_loss


@pytest.mark.parametrize(
    ("real", "fake", "expected"),
    [(2.0, -2.0, 0.0), (1.0, -1.0, 0.0), (0.0, 0.0, 2.0), (-1.0, 0.0, 3.0), (0.25, -0.5, 1.25)],
)
def test_hinge_by_hand(real: float, fake: float, expected: float) -> None:
    assert float(hinge_loss(torch.tensor([real]), torch.tensor([fake]))) == expected


def test_hinge_is_the_mean_over_regions() -> None:
    assert float(hinge_loss(torch.tensor([[3.0, 0.0]]), torch.tensor([[-3.0, 1.0]]))) == 0.5 + 1.0


@pytest.mark.parametrize(("num_halvings", "reach"), [(2, 34), (3, 70)])
def test_a_score_depends_on_a_patch_of_the_documented_size(num_halvings: int, reach: int) -> None:
    discriminator = PatchDiscriminator(8, num_halvings)
    for layer in discriminator.main:
        if isinstance(layer, torch.nn.GroupNorm):  # its statistics are of the whole image
            layer.forward = lambda inputs: inputs  # type: ignore[method-assign,assignment]
    images = torch.randn(1, 3, 128, 128, requires_grad=True)
    scores = discriminator(images)
    middle = scores.shape[1] // 2
    scores[0, middle, middle].backward()
    assert images.grad is not None
    rows = images.grad.abs().sum((0, 1, 3)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == reach


def test_it_learns_to_distinguish_sharp_images_from_blurred_ones() -> None:
    discriminator = PatchDiscriminator(8, num_halvings=1)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
    for _ in range(40):
        real = torch.randn(8, 3, 8, 8)
        loss = hinge_loss(discriminator(real), discriminator(torch.nn.functional.avg_pool2d(real, 3, 1, 1)))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    assert float(loss.detach()) < 0.5


def test_images_may_have_the_documented_minimum_size() -> None:
    discriminator = PatchDiscriminator(8, num_halvings=2)
    assert discriminator(torch.zeros(1, 3, 12, 12)).shape == (1, 1, 1)
    with pytest.raises(ValueError, match=r"12 by 11 pixels.* 12 .*num_halvings"):
        discriminator(torch.zeros(1, 3, 12, 11))


@pytest.mark.parametrize(("num_channels", "num_halvings"), [(12, 3), (0, 3), (8, 0)])
def test_sizes_that_make_no_network_are_refused(num_channels: int, num_halvings: int) -> None:
    message = rf"num_channels={num_channels} .*num_halvings={num_halvings}.*multiple of 8"
    with pytest.raises(ValueError, match=message):
        PatchDiscriminator(num_channels, num_halvings)
