"""Trains an image tokenizer against a discriminator: the VQ-GAN with its adversary (Esser et al., arXiv 2012.09841)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from synth2_lightning.interfaces import Discriminator
from synth2_lightning.modules.base import decay_groups
from synth2_lightning.modules.tokenizer import TokenizerModule
from synth2_lightning.nn.discriminator import hinge_loss
from synth2_lightning.types import Reconstruction


class AdversarialTokenizerModule(TokenizerModule):
    """Learns reconstructions that a discriminator, which learns alongside, takes for real pictures.

    Both sides learn in one step of one optimizer, each from a loss that has no gradient to the other: as two
    optimizers of one kind would, since optimizers treat each parameter by itself. So a step is a batch, and what
    counts steps (``max_steps``, schedules, accumulation, checkpoints) or scales gradients (mixed precision) means what
    it always does. ``loss`` is the sum of both sides, and no measure of quality: look at ``l2`` and ``perceptual``.

    Until ``start_step`` the reconstruction learns alone. Start after the codes did (``num_free_batches``).

    Args:
        *args: See :class:`TokenizerModule`.
        discriminator: The other side.
        adversarial_weight: Weight of the discriminator's verdict in what the tokenizer learns from; a constant,
            not the adaptive weight of VQ-GAN's equation 7. The default is MUSE's (Chang et al., arXiv 2301.00704).
        start_step: Optimisation step at which the discriminator begins to learn and to be heard.
        discriminator_lr: Learning rate of the discriminator; by default the tokenizer's. Schedules scale both.
        **kwargs: See :class:`TokenizerModule`.

    Raises:
        ValueError: If a weight, the learning rate or the step is negative.

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
                f"AdversarialTokenizerModule was given adversarial_weight={adversarial_weight}, start_step="
                f"{start_step} and discriminator_lr={discriminator_lr}; expected none below 0."
            )
        self.discriminator = discriminator
        self.adversarial_weight = adversarial_weight
        self.start_step = start_step
        self.discriminator_lr = discriminator_lr

    @property
    def has_started(self) -> bool:
        """Whether the discriminator learns and is heard; in evaluation it always is heard."""
        return not self.training or self.global_step >= self.start_step

    def compute_losses(self, reconstruction: Reconstruction) -> dict[str, Tensor]:
        """Add what each side wants of the other; in training both are zero before the start."""
        losses = super().compute_losses(reconstruction)
        if self.has_started:
            adversarial = -self._judge(reconstruction.pixels).float().mean()
            real, fake = (
                self.discriminator(images) for images in (reconstruction.target, reconstruction.pixels.detach())
            )
            discriminator = hinge_loss(real, fake)
        else:
            # DDP waits for a gradient of every parameter. These are dropped before the optimizer sees them.
            discriminator = 0.0 * torch.stack([weight.sum() for weight in self.discriminator.parameters()]).sum()
            adversarial = discriminator.detach()
        loss = losses["loss"] + self.adversarial_weight * adversarial + discriminator
        return {**losses, "loss": loss, "adversarial": adversarial, "discriminator": discriminator}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The tokenizer's groups, then the discriminator's with their own learning rate."""
        rate = {} if self.discriminator_lr is None else {"lr": self.discriminator_lr}
        groups = decay_groups(self.discriminator.parameters())
        return decay_groups(self.tokenizer.parameters()) + [group | rate for group in groups]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave the discriminator alone before its start: gradients of zero would still let its weights decay."""
        if not self.has_started:
            self.discriminator.zero_grad()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norms of both sides apart, so that a loud one does not hush the other."""
        if gradient_clip_algorithm == "value" or not gradient_clip_val:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            clip_grad_norm_(self.tokenizer.parameters(), gradient_clip_val)
            clip_grad_norm_(self.discriminator.parameters(), gradient_clip_val)

    def _judge(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch rows columns"]:
        """Score pictures with a gradient to them, but none to the discriminator."""
        weights = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        scores: Tensor = functional_call(self.discriminator, weights, (images,))
        return scores
