"""Parallel decoding: each of a few steps unmasks many image tokens (MaskGIT, arXiv 2202.04200).

For speed, the keys and values of the text are computed once per caption; the conditional and unconditional states of
guidance run in one batch and are combined before the heads; the heads are evaluated at masked tokens only; and the
tokens of a step are written in place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from synth2_lightning.nn.maskgit import MaskGit, TextKeyValues
from synth2_lightning.nn.masking import count_masked, sample_categorical
from synth2_lightning.nn.unmasking import UnmaskingOrder

Embed = Callable[[Int[Tensor, "batch tokens levels"]], Float[Tensor, "batch tokens dim"]]


@dataclass(frozen=True, kw_only=True)  # without slots: jsonargparse reads the __dict__ of defaults
class SamplingSettings:
    """Settings of parallel decoding. Pairs are values at the first and the last step, linear in between.

    Args:
        num_steps: Steps of parallel decoding.
        guidance: Scale t of classifier-free guidance, (1 + t) conditional - t unconditional (MUSE, arXiv 2301.00704,
            section 2.7). 0 disables it and halves the computation. MUSE increases it over the steps.
        temperature: Divides the logits of the codes.
        top_k: Sample from the k most likely codes; ``None`` samples from all.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> SamplingSettings(num_steps=8, guidance=(0.0, 3.0)).at(1.0)
        (3.0, 1.0)
    """

    num_steps: int = 12
    guidance: tuple[float, float] = (0.0, 0.0)
    temperature: tuple[float, float] = (1.0, 1.0)
    top_k: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        too_few = self.num_steps < 1 or (self.top_k is not None and self.top_k < 1)
        if too_few or min(self.guidance) < 0 or min(self.temperature) <= 0:
            raise ValueError(
                f"{self} is out of range; expected num_steps and top_k of 1 or more, guidance of 0 or more, and a "
                "temperature above 0. Set top_k to 1 for greedy decoding."
            )

    @property
    def is_guided(self) -> bool:
        """Whether any step uses classifier-free guidance."""
        return max(self.guidance) > 0

    def at(self, progress: float) -> tuple[float, float]:
        """Return guidance and temperature of a step; progress is 0 at the first step and 1 at the last."""
        guidance, temperature = (first + (last - first) * progress for first, last in (self.guidance, self.temperature))
        return guidance, temperature


def noise_shape(network: MaskGit, settings: SamplingSettings) -> tuple[int, int, int]:
    """Return the shape of the random numbers of one image: steps, tokens, levels + 1 (one for the order)."""
    return settings.num_steps, network.num_tokens, network.num_levels + 1


@torch.no_grad()
def decode_in_parallel(
    network: MaskGit,
    embed: Embed,
    text: TextKeyValues,
    null_text: TextKeyValues | None,
    uniform: Float[Tensor, "batch steps tokens numbers"],
    settings: SamplingSettings,
    order: UnmaskingOrder,
) -> Int[Tensor, "batch tokens levels"]:
    """Sample the tokens of images, one image per text.

    Args:
        network: In evaluation mode.
        embed: Maps codes to the tokenizer's embeddings.
        text: Conditions of the images.
        null_text: Unconditional or negative texts, one per image; required with guidance. Its length may differ from
            that of ``text``. Length 1, as the learned null text has, is the least expensive.
        uniform: Random numbers in [0, 1), of the shape that :func:`noise_shape` returns per image. They are arguments
            so that the tokens of an image depend on its own seed, not on the rest of the batch.
        settings: Steps, guidance, temperature.
        order: Selects the tokens that a step unmasks.

    Raises:
        ValueError: If guidance is on without ``null_text``.
    """
    if settings.is_guided and null_text is None:
        raise ValueError(
            f"Guidance {settings.guidance} needs an unconditional text; expected null_text, got None. Compute it by "
            "MaskGit.encode_text, or set guidance to 0."
        )
    texts = (text, null_text) if settings.is_guided and null_text else (text,)
    canvas = _Canvas(network, embed, len(text), uniform.device)
    masked = order.start(network.grid).to(uniform.device).expand(len(text), -1)
    for step, num_left in enumerate(count_masked(network.num_tokens, settings.num_steps)):
        num_unmasked = masked.shape[1] - num_left
        masked_positions, rest = masked.tensor_split([order.num_candidates(masked.shape[1], num_unmasked)], dim=1)
        noise = _at(uniform[:, step], masked_positions)
        guidance, temperature = settings.at(step / max(1, settings.num_steps - 1))
        states = canvas.predict(texts, masked_positions)
        ids, log_probabilities = _sample(network, states, noise, guidance, temperature, settings.top_k)
        fraction_left = 1 - (step + 1) / settings.num_steps
        kept = order.select(log_probabilities, noise[..., -1], num_unmasked, fraction_left)
        canvas.commit(_at(masked_positions, kept), _at(ids, kept))
        is_left = torch.ones_like(masked_positions, dtype=torch.bool).scatter(1, kept, False)
        masked = torch.cat([masked_positions[is_left].view(len(masked), -1), rest], dim=1)
    return canvas.ids


class _Canvas:
    """State of the images during decoding: sampled codes, and the inputs of the network."""

    def __init__(self, network: MaskGit, embed: Embed, batch: int, device: torch.device) -> None:
        num_tokens, num_levels = network.num_tokens, network.num_levels
        self.network = network
        self.embed = embed
        self.ids = torch.zeros(batch, num_tokens, num_levels, dtype=torch.long, device=device)
        self._embeddings = torch.zeros_like(embed(self.ids[:1])).repeat(batch, 1, 1)
        self._mask = torch.ones(batch, num_tokens, dtype=torch.bool, device=device)
        self._rows = torch.arange(batch, device=device)[:, None]

    def predict(self, texts: Sequence[TextKeyValues], masked_positions: Tensor) -> Tensor:
        """Return hidden states of shape (texts, batch, positions, width)."""
        states: Tensor = self.network(self._embeddings, self._mask, *texts)
        return states.view(len(texts), *self._embeddings.shape[:2], -1)[:, self._rows, masked_positions]

    def commit(self, positions: Tensor, ids: Tensor) -> None:
        """Write the sampled codes and unmask their positions."""
        at = self._rows, positions
        self.ids[at] = ids
        self._embeddings[at] = self.embed(ids)
        self._mask[at] = False


def _sample(
    network: MaskGit,
    states: Float[Tensor, "texts batch positions width"],
    noise: Float[Tensor, "batch positions numbers"],
    guidance: float,
    temperature: float,
    top_k: int | None,
) -> tuple[Int[Tensor, "batch positions levels"], Float[Tensor, "batch positions"]]:
    """Sample a code of each level in turn, given those of the previous levels; return log-probabilities, too."""
    # The heads are linear and the level embeddings equal for all texts: guidance of states is guidance of logits.
    states = torch.lerp(states[1], states[0], 1 + guidance) if len(states) == 2 else states[0]
    ids = torch.zeros(*states.shape[:2], 0, dtype=torch.long, device=states.device)
    log_probabilities = torch.zeros(states.shape[:2], device=states.device)
    for level in range(network.num_levels):
        logits = network.level_logits(states, ids).float() / temperature
        level_log_probabilities = _keep_top(logits, top_k).log_softmax(-1)
        codes = sample_categorical(level_log_probabilities, noise[..., level])[..., None]
        log_probabilities += level_log_probabilities.gather(-1, codes)[..., 0]
        ids = torch.cat([ids, codes], dim=-1)
    return ids, log_probabilities


def _keep_top(logits: Tensor, top_k: int | None) -> Tensor:
    if top_k is None or top_k >= logits.shape[-1]:
        return logits
    least = logits.topk(top_k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def _at(values: Tensor, positions: Int[Tensor, "batch selected"]) -> Tensor:
    """Index the second dimension by positions that differ from row to row."""
    return values[torch.arange(len(values), device=values.device)[:, None], positions]
