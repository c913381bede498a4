"""CIDEr optimization: the second stage of captioning (self-critical sequence training, arXiv 1612.00563).

The objective is the expected CIDEr-D of sampled captions. The gradient of its negative is estimated from k samples per
image (REINFORCE): the mean over samples w of ``-(r(w) - b) * gradient of log p(w)``, where ``log p`` is summed over the
tokens of a sample, its end-of-text token included. The baseline b does not depend on w, so that the estimate is
unbiased.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from synth2_lightning.interfaces import HasTrainingCaptions
from synth2_lightning.metrics.cider_reward import CiderReward
from synth2_lightning.metrics.diversity import measure_distinct_n
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.nn.transfer import to_device
from synth2_lightning.types import GenerationSettings, ImageTextBatch, SampledTexts, TokenLoss


class SelfCriticalModule(VisionLanguageModule):
    """A captioner trained to maximize CIDEr-D; start from the weights of a trained one.

    The baseline of a sample is the mean reward of the other samples of its image (R. Luo 2020, arXiv 2003.09971). The
    loss is averaged over samples and not over tokens, whose number depends on the samples: the estimate would be
    biased. ``val/loss`` is still the negative log-likelihood of the captions per token.

    The decoder stays in ``eval()``, so that captions are sampled from the distribution whose likelihoods are computed.
    Dropout of the resampler is applied once per step, to all samples of an image and their likelihoods alike.

    Logged per step, over the samples of all images of a batch: ``train/reward``; ``train/reward_std``, the standard
    deviation among the samples of an image; ``train/baseline``; ``train/complete``, the fraction of captions that ended
    before the maximum length; ``train/length``, ``train/distinct_1`` and ``train/distinct_2``, which show whether
    captions become longer or more alike as the reward rises.

    Args:
        args: Those of :class:`VisionLanguageModule`; samples have at most ``generation.max_new_tokens`` tokens.
        samples_per_image: Captions that are sampled for each image of a batch.
        kwargs: Those of :class:`VisionLanguageModule`.

    Attributes:
        reward: The reward of captions, with document frequencies of the training captions; set when a fit starts.

    Raises:
        ValueError: If ``samples_per_image`` is below two; on training batches without references.
        TypeError: When a fit starts, if the trainer has no datamodule with training captions.
    """

    def __init__(self, *args: Any, samples_per_image: int = 5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if samples_per_image < 2:
            raise ValueError(
                f"SelfCriticalModule got samples_per_image={samples_per_image}; expected 2 or more, because "
                "captions of an image are compared with each other."
            )
        self.samples_per_image = samples_per_image
        self.reward: CiderReward | None = None
        self.decoder.eval()

    def train(self, mode: bool = True) -> "SelfCriticalModule":
        """Set the mode; the decoder stays in ``eval()``."""
        super().train(mode)
        self.decoder.eval()
        return self

    def on_fit_start(self) -> None:
        """Run at the start of a fit: counts the document frequencies of the training captions."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, HasTrainingCaptions):
            raise TypeError(
                f"{type(self).__name__} got {type(data).__name__} as the trainer's datamodule; expected one with "
                "training_captions(), such as RealDataModule or MixedDataModule, for the document frequencies of the "
                "reward. Pass it to fit() in place of data loaders."
            )
        self.reward = CiderReward(data.training_captions())

    def compute_loss(self, visual: Float[Tensor, "batch latents width"], batch: ImageTextBatch) -> TokenLoss:
        """Return the loss of the samples of each image in training, or else the loss of its caption."""
        if not self.training:
            return super().compute_loss(visual, batch)
        num_samples = self.samples_per_image
        with self._without_compilation():
            samples = self.decoder.sample(visual, num_samples, self.generation.max_new_tokens, batch.prompts or None)
        references = [texts for texts in batch.references for _ in range(num_samples)]
        rewards = self.score(samples.texts, samples.is_complete, references)
        rewards = rewards.view(-1, num_samples)
        baselines = self.baselines(rewards, visual, batch)
        self._log_samples(samples, rewards, baselines)
        advantages = to_device(rewards - baselines, visual.device)
        sums = (advantages * samples.losses.sums.view(-1, num_samples)).sum(1)
        return TokenLoss(sums, torch.full_like(samples.losses.counts[: len(sums)], num_samples))

    def score(
        self, captions: Sequence[str], is_complete: Sequence[bool], references: Sequence[tuple[str, ...]]
    ) -> Float[Tensor, " captions"]:
        """Return the reward of each caption, on the CPU. Override it for another reward.

        Args:
            captions: Sampled captions.
            is_complete: Whether each one ended before the maximum length.
            references: All captions of the image of each one.
        """
        if self.reward is None:
            raise RuntimeError("The reward has no document frequencies yet; expected a call in Trainer.fit().")
        if len(references) != len(captions):
            raise ValueError(
                f"There are {len(captions)} captions and references of {len(references)}; expected references of each. "
                "Use a datamodule that fills ImageTextBatch.references of training batches."
            )
        return torch.from_numpy(self.reward(captions, is_complete, references)).float()

    def baselines(
        self,
        rewards: Float[Tensor, "batch samples"],
        visual: Float[Tensor, "batch latents width"],
        batch: ImageTextBatch,
    ) -> Float[Tensor, "batch samples"]:
        """Return the baseline of each sample: the mean reward of the other samples of its image. Override it."""
        return (rewards.sum(1, keepdim=True) - rewards) / (self.samples_per_image - 1)

    def _log_samples(self, samples: SampledTexts, rewards: Tensor, baselines: Tensor) -> None:
        figures = {
            "reward": rewards.mean(),
            "reward_std": rewards.std(1).mean(),
            "baseline": baselines.mean(),
            "complete": sum(samples.is_complete) / len(samples.texts),
            **measure_distinct_n(samples.texts),
        }
        for name, value in figures.items():
            # A number would be copied to the device, which waits.
            self.log(f"train/{name}", torch.as_tensor(value), batch_size=len(rewards))


class GreedyBaselineModule(SelfCriticalModule):
    """As :class:`SelfCriticalModule`, with the baseline of S. Rennie et al.: the reward of the greedy caption.

    It takes one more decoding per step; R. Luo 2020 (arXiv 2003.09971) measured better captions with the other samples.
    Greedy captions count as complete.
    """

    def baselines(
        self,
        rewards: Float[Tensor, "batch samples"],
        visual: Float[Tensor, "batch latents width"],
        batch: ImageTextBatch,
    ) -> Float[Tensor, "batch samples"]:
        """Return the reward of the greedy caption of each image, once per sample."""
        settings = GenerationSettings(max_new_tokens=self.generation.max_new_tokens)
        with self._without_compilation():
            captions = self.decoder.generate(visual, settings, batch.prompts or None)
        return self.score(captions, [True] * len(captions), batch.references)[:, None].expand_as(rewards)
