"""Parallel decoding: each of a few steps unmasks many image tokens (MaskGIT, arXiv 2202.04200).

For speed, the keys and values of the text are computed once per caption, and the unconditional states of the first step
once per batch; conditional and unconditional states are combined before the heads; the heads are evaluated at
candidates only, in chunks of bounded memory; and the tokens of a step are written in place. Two settings leave out
work: steps between full ones do not compute settled tokens again (ReCAP, arXiv 2505.19089), and steps can guide by the
last difference between conditional and unconditional states (FasterCache, arXiv 2410.19355). No step waits for the
device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from synth2_lightning.nn.attention import KeyValueCache, select_tokens
from synth2_lightning.nn.maskgit import MaskGit, TextKeyValues
from synth2_lightning.nn.masking import count_masked, sample_categorical
from synth2_lightning.nn.unmasking import UnmaskingOrder

MAX_LOGITS, MAX_LOGITS_ON_CPU = 2**25, 2**21
"""Logits computed at once: 128 MiB in float32, and as much for each of a few intermediate results. On a CPU, as many as
its caches hold."""

Embed = Callable[[Int[Tensor, "batch tokens levels"]], Float[Tensor, "batch tokens dim"]]


@dataclass(frozen=True, kw_only=True)  # without slots: jsonargparse reads the __dict__ of defaults
class MaskGitSampling:
    """Settings of parallel decoding. Pairs are values at the first and the last step, linear in between.

    Args:
        num_steps: Steps of parallel decoding.
        guidance: Scale t of classifier-free guidance, (1 + t) conditional - t unconditional (MUSE, arXiv 2301.00704,
            section 2.7). 0 disables it and halves the computation. MUSE increases it over the steps.
        guidance_every: Period of the guided steps that compute unconditional states. Those between them add the last
            difference to the conditional states, for half of the computation. Orders that do not predict all masked
            tokens, such as Halton's, compute both in each step.
        full_every: Period of the steps that compute all tokens. The steps between them compute the candidates and the
            tokens that the step before unmasked, and attend to the others by their previous keys and values (ReCAP,
            arXiv 2505.19089). 1 computes all tokens in each step. Unconditional states that such a step does not
            compute are computed for all tokens when they are next.
        temperature: Divides the logits of the codes.
        top_k: Sample from the k most likely codes; ``None`` samples from all.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> MaskGitSampling(num_steps=8, guidance=(0.0, 3.0)).at(1.0)
        (3.0, 1.0)
    """

    num_steps: int = 12
    guidance: tuple[float, float] = (0.0, 0.0)
    guidance_every: int = 1
    full_every: int = 1
    temperature: tuple[float, float] = (1.0, 1.0)
    top_k: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        counts = (self.num_steps, self.guidance_every, self.full_every, 1 if self.top_k is None else self.top_k)
        is_scale = all(0 <= scale < math.inf for scale in self.guidance)
        if min(counts) < 1 or not is_scale or not all(0 < value < math.inf for value in self.temperature):
            raise ValueError(
                f"{self} is out of range; expected num_steps, guidance_every, full_every and top_k of 1 or more, "
                "guidance of 0 or more, and a temperature above 0. Set top_k to 1 for greedy decoding."
            )

    @property
    def is_guided(self) -> bool:
        """Whether any step uses classifier-free guidance."""
        return max(self.guidance) > 0

    def at(self, progress: float) -> tuple[float, float]:
        """Return guidance and temperature of a step; progress is 0 at the first step and 1 at the last."""
        guidance, temperature = (first + (last - first) * progress for first, last in (self.guidance, self.temperature))
        return guidance, temperature


def noise_shape(network: MaskGit, settings: MaskGitSampling) -> tuple[int, int, int]:
    """Return the shape of the random numbers of one image: steps, tokens, levels + 1 (one for the order)."""
    return settings.num_steps, network.num_tokens, network.num_levels + 1


@torch.no_grad()
def decode_in_parallel(
    network: MaskGit,
    embed: Embed,
    text: TextKeyValues,
    null_text: TextKeyValues | None,
    uniform: Float[Tensor, "batch steps tokens numbers"],
    settings: MaskGitSampling,
    order: UnmaskingOrder,
) -> Int[Tensor, "batch tokens levels"]:
    """Sample the tokens of images, one image per text.

    Args:
        network: In evaluation mode.
        embed: Maps codes to the tokenizer's embeddings.
        text: Conditions of the images.
        null_text: An unconditional or negative text for all images; required with guidance. Its length may differ from
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
    canvas = _Canvas(network, embed, len(text), uniform.device)
    conditional = _Branch(network, text, canvas, settings)
    guide = None if null_text is None else _Guide(_Branch(network, null_text, canvas, settings), settings)
    masked = order.start(network.grid).to(uniform.device).expand(len(text), -1)
    for step, num_left in enumerate(count_masked(network.num_tokens, settings.num_steps)):
        num_unmasked = masked.shape[1] - num_left
        candidates, rest = masked.tensor_split([order.num_candidates(masked.shape[1], num_unmasked)], dim=1)
        noise = select_tokens(uniform[:, step], candidates)
        guidance, temperature = settings.at(step / max(1, settings.num_steps - 1))
        states = conditional.predict(candidates)
        if guidance and guide is not None:
            has_all_masked = candidates.shape[1] == masked.shape[1]
            states = guide.apply(states, guidance, candidates, has_all_masked)
        ids, log_probabilities = _sample(network, states, noise, temperature, settings.top_k)
        ranking = order.rank(log_probabilities, noise[..., -1], 1 - (step + 1) / settings.num_steps)
        unmasked, left = ranking.tensor_split([num_unmasked], dim=1)
        canvas.commit(select_tokens(candidates, unmasked), select_tokens(ids, unmasked))
        masked = torch.cat([select_tokens(candidates, left), rest], dim=1)
    return canvas.ids


class _Canvas:
    """State of the images during decoding: sampled codes, and the inputs of the network."""

    def __init__(self, network: MaskGit, embed: Embed, batch: int, device: torch.device) -> None:
        num_tokens, num_levels = network.num_tokens, network.num_levels
        self.embed = embed
        self.ids = torch.zeros(batch, num_tokens, num_levels, dtype=torch.long, device=device)
        self.embeddings = torch.zeros_like(embed(self.ids[:1])).repeat(batch, 1, 1)
        self.mask = torch.ones(batch, num_tokens, dtype=torch.bool, device=device)
        self.unmasked: list[Tensor] = []  # positions, step by step
        self.rows = torch.arange(batch, device=device)[:, None]

    def commit(self, positions: Int[Tensor, "batch unmasked"], ids: Int[Tensor, "batch unmasked levels"]) -> None:
        """Write the sampled codes and unmask their positions."""
        at = self.rows, positions
        self.ids[at] = ids
        self.embeddings[at] = self.embed(ids)
        self.mask[at] = False
        self.unmasked.append(positions)


class _Branch:
    """The network under one text, with the keys and values of tokens that it does not compute in each step."""

    def __init__(self, network: MaskGit, text: TextKeyValues, canvas: _Canvas, settings: MaskGitSampling) -> None:
        self.network = network
        self.text = text
        self.canvas = canvas
        self._full_every = settings.full_every
        self._caches = [KeyValueCache() for _ in network.layers] if settings.full_every > 1 else []
        self._num_steps: int | None = None  # steps before the last prediction

    def predict(self, candidates: Int[Tensor, "batch candidates"]) -> Float[Tensor, "states candidates width"]:
        """Return hidden states of the candidates; one row, if it is the same for all images.

        All tokens are computed if a step that computes all has come since the last call, and in the first call, because
        the caches are empty.
        """
        canvas, previous, step = self.canvas, self._num_steps, len(self.canvas.unmasked)
        self._num_steps = step
        if previous is None or step // self._full_every > previous // self._full_every:
            is_blank = not canvas.unmasked and len(self.text) == 1  # all images are masked, with the same text
            rows = slice(1 if is_blank else None)
            states = self._run(canvas.embeddings[rows], canvas.mask[rows])
            for cache in self._caches if is_blank else []:
                cache.repeat(len(candidates))
            return select_tokens(states, candidates[rows])
        positions = torch.cat([candidates, *canvas.unmasked[previous:]], dim=1)
        tokens = select_tokens(canvas.embeddings, positions), select_tokens(canvas.mask, positions)
        return self._run(*tokens, positions=positions, num_outputs=candidates.shape[1])

    def _run(self, embeddings: Tensor, mask: Tensor, **arguments: Any) -> Tensor:
        states: Tensor = self.network(embeddings, mask, self.text, caches=self._caches, **arguments)
        return states


class _Guide:
    """Classifier-free guidance of hidden states.

    The heads are linear and the level embeddings equal for all texts: guidance of states is guidance of logits.
    """

    def __init__(self, unconditional: _Branch, settings: MaskGitSampling) -> None:
        self.unconditional = unconditional
        self._every = settings.guidance_every
        self._num_guided = 0
        self._difference: Tensor | None = None

    def apply(
        self,
        states: Float[Tensor, "batch candidates width"],
        guidance: float,
        candidates: Int[Tensor, "batch candidates"],
        has_all_masked: bool,
    ) -> Float[Tensor, "batch candidates width"]:
        """Return guided hidden states of the candidates.

        Args:
            states: Conditional states.
            guidance: Scale.
            candidates: Positions.
            has_all_masked: Whether all masked tokens are candidates; otherwise a difference would not contain those of
                the next step.
        """
        self._num_guided += 1
        if self._difference is not None and (self._num_guided - 1) % self._every:
            return states + guidance * select_tokens(self._difference, candidates)
        unconditional = self.unconditional.predict(candidates)
        if self._every > 1 and has_all_masked:
            difference = states - unconditional
            canvas = self.unconditional.canvas
            self._difference = difference.new_zeros(*canvas.mask.shape, difference.shape[-1])
            self._difference[canvas.rows, candidates] = difference
        return torch.lerp(unconditional, states, 1 + guidance)


def _sample(
    network: MaskGit,
    states: Float[Tensor, "batch positions width"],
    noise: Float[Tensor, "batch positions numbers"],
    temperature: float,
    top_k: int | None,
) -> tuple[Int[Tensor, "batch positions levels"], Float[Tensor, "batch positions"]]:
    """Sample codes in chunks of tokens; return their log-probabilities, too."""
    num_rows = max(1, (MAX_LOGITS_ON_CPU if states.is_cpu else MAX_LOGITS) // network.codebook_size)
    chunks = zip(states.flatten(0, 1).split(num_rows), noise.flatten(0, 1).split(num_rows), strict=True)
    sampled = [_sample_rows(network, rows, numbers, temperature, top_k) for rows, numbers in chunks]
    ids, log_probabilities = zip(*sampled, strict=True)
    return torch.cat(ids).view(*states.shape[:2], -1), torch.cat(log_probabilities).view(states.shape[:2])


def _sample_rows(
    network: MaskGit,
    states: Float[Tensor, "rows width"],
    noise: Float[Tensor, "rows numbers"],
    temperature: float,
    top_k: int | None,
) -> tuple[Int[Tensor, "rows levels"], Float[Tensor, " rows"]]:
    """Sample a code of each level in turn, given those of the previous levels."""
    ids = torch.zeros(len(states), 0, dtype=torch.long, device=states.device)
    log_probabilities = torch.zeros(len(states), device=states.device)
    for level in range(network.num_levels):
        logits = network.level_logits(states, ids).float().div_(temperature)
        codes, level_log_probabilities = sample_categorical(_keep_top(logits, top_k), noise[:, level])
        if top_k is not None:  # confidence is the probability among all codes; the only one of top_k=1 always has 1
            level_log_probabilities = logits.gather(1, codes[:, None]).squeeze(1) - logits.logsumexp(1)
        log_probabilities += level_log_probabilities
        ids = torch.cat([ids, codes[:, None]], dim=-1)
    return ids, log_probabilities


def _keep_top(logits: Tensor, top_k: int | None) -> Tensor:
    if top_k is None or top_k >= logits.shape[-1]:
        return logits
    least = logits.topk(top_k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)
