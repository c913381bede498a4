"""Training of an image tokenizer with a discriminator: VQ-GAN (Esser et al., arXiv 2012.09841)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from synth2_lightning.modules.tokenizer import TokenizerModule
from synth2_lightning.nn.discriminator import Discriminator, hinge_loss
from synth2_lightning.training.optimizers import decay_groups
from synth2_lightning.types import Reconstruction


class AdversarialTokenizerModule(TokenizerModule):
    """Trains a tokenizer and a discriminator jointly.

    One optimizer updates both in the same step. Each loss has no gradient to the other network, so this equals two
    optimizers of the same kind, and one step is one batch for ``max_steps``, schedules, accumulation, checkpoints and
    mixed precision. ``loss`` is the sum of both losses and does not measure quality; see ``l2`` and ``perceptual``.

    Until ``start_step`` the tokenizer is trained without the discriminator. Set it to a step after the tokenizer has
    started to quantize (``num_free_batches``).

    Args:
        *args: See :class:`TokenizerModule`.
        discriminator: Scores patches of images as real or reconstructed.
        adversarial_weight: Weight of the adversarial loss in the tokenizer's loss; a constant, not the adaptive weight
            of VQ-GAN's equation 7. The default is MUSE's (Chang et al., arXiv 2301.00704).
        start_step: Optimization step from which the discriminator is trained and the adversarial loss is used.
        discriminator_lr: Learning rate of the discriminator; by default the tokenizer's. Schedules scale both.
        **kwargs: See :class:`TokenizerModule`.

    Raises:
        ValueError: If ``adversarial_weight``, ``start_step`` or ``discriminator_lr`` is negative.

    Example:
        >>> from synth2_lightning.encoders.vqgan import TrainableVQGAN
        >>> from synth2_lightning.nn.discriminator import PatchDiscriminator
        >>> vqgan = TrainableVQGAN(image_size=16, block_out_channels=(8, 8))
        >>> module = AdversarialTokenizerModule(vqgan, discriminator=PatchDiscriminator(8, num_halvings=2))
        >>> module.start_step
        0
    """

    def __init__(
        self,
        *args: Any,
        discriminator: Discriminator,
        adversarial_weight: float = 0.1,
        start_step: int = 0,
        discriminator_lr: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if min(adversarial_weight, start_step, discriminator_lr or 0) < 0:
            raise ValueError(
                f"AdversarialTokenizerModule got adversarial_weight={adversarial_weight}, start_step="
                f"{start_step} and discriminator_lr={discriminator_lr}; expected 0 or more for each."
            )
        self.discriminator = discriminator
        self.adversarial_weight = adversarial_weight
        self.start_step = start_step
        self.discriminator_lr = discriminator_lr

    @property
    def has_started(self) -> bool:
        """Whether the discriminator is used; in evaluation it always is."""
        return not self.training or self.global_step >= self.start_step

    def compute_losses(self, reconstruction: Reconstruction) -> dict[str, Tensor]:
        """Return the tokenizer's losses and those of both networks against each other, 0 before ``start_step``."""
        losses = super().compute_losses(reconstruction)
        if self.has_started:
            adversarial = -self._score(reconstruction.pixels).float().mean()
            real, fake = (
                self.discriminator(images) for images in (reconstruction.target, reconstruction.pixels.detach())
            )
            discriminator = hinge_loss(real, fake)
        else:
            # DDP waits for a gradient of every parameter; on_before_optimizer_step drops these.
            discriminator = 0.0 * torch.stack([weight.sum() for weight in self.discriminator.parameters()]).sum()
            adversarial = discriminator.detach()
        loss = losses["loss"] + self.adversarial_weight * adversarial + discriminator
        return {**losses, "loss": loss, "adversarial": adversarial, "discriminator": discriminator}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the tokenizer's groups, then the discriminator's with their own learning rate."""
        rate = {} if self.discriminator_lr is None else {"lr": self.discriminator_lr}
        groups = decay_groups(self.discriminator)
        return decay_groups(self.tokenizer) + [group | rate for group in groups]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Run before each step: drops the discriminator's gradients until ``start_step``: its weights would decay."""
        super().on_before_optimizer_step(optimizer)
        if not self.has_started:
            self.discriminator.zero_grad()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Run before each step: clips the gradient norms of tokenizer and discriminator separately."""
        if gradient_clip_algorithm == "value" or not gradient_clip_val:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            clip_grad_norm_(self.tokenizer.parameters(), gradient_clip_val)
            clip_grad_norm_(self.discriminator.parameters(), gradient_clip_val)

    def _score(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch rows columns"]:
        """Return the discriminator's scores, with gradients to the images but not to its weights."""
        weights = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        scores: Tensor = functional_call(self.discriminator, weights, (images,))
        return scores
