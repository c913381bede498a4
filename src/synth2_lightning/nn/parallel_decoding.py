"""Parallel decoding: image tokens are revealed many at a time, in a few steps (MaskGIT, arXiv 2202.04200).

Built to be quick: the text is read once per caption, both halves of guidance run in one batch and meet before the
heads, these are asked only where a token is hidden, and what a step reveals is written in place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from synth2_lightning.nn.maskgit import MaskGit, TextMemory
from synth2_lightning.nn.masking import count_hidden, sample_categorical
from synth2_lightning.nn.unmasking import UnmaskingOrder

Embed = Callable[[Int[Tensor, "batch tokens levels"]], Float[Tensor, "batch tokens dim"]]


@dataclass(frozen=True, kw_only=True)  # without slots: jsonargparse reads the __dict__ of defaults
class SamplingSettings:
    """How image tokens are drawn. Pairs are values at the first and the last step, linear in between.

    Args:
        num_steps: Steps of parallel decoding.
        guidance: t in (1 + t) conditional - t unconditional (MUSE, arXiv 2301.00704, section 2.7); 0 is without
            guidance and half the work. MUSE lets it rise.
        temperature: Divides the logits of the codes.
        top_k: Draw among the likeliest codes only; ``None`` among all.

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
        """Refuse what cannot be meant."""
        too_few = self.num_steps < 1 or (self.top_k is not None and self.top_k < 1)
        if too_few or min(self.guidance) < 0 or min(self.temperature) <= 0:
            raise ValueError(
                f"{self} cannot be sampled with; expected num_steps and top_k of 1 or more, guidance of 0 or more, and "
                "temperature above 0. For the likeliest codes alone set top_k to 1."
            )

    @property
    def is_guided(self) -> bool:
        """Whether the unconditional half has to be computed."""
        return max(self.guidance) > 0

    def at(self, progress: float) -> tuple[float, float]:
        """Guidance and temperature at a step; progress is 0 at the first and 1 at the last."""
        guidance, temperature = (first + (last - first) * progress for first, last in (self.guidance, self.temperature))
        return guidance, temperature


@dataclass(frozen=True, slots=True)
class DecodedTokens:
    """Codes that were drawn, and the likeliest ones of each with their probabilities at that moment."""

    ids: Int[Tensor, "batch tokens levels"]
    candidates: Int[Tensor, "batch tokens levels candidates"]
    probabilities: Float[Tensor, "batch tokens levels candidates"]


def count_draws(network: MaskGit, settings: SamplingSettings) -> tuple[int, int, int]:
    """Shape of the random numbers that one picture needs: steps, tokens, levels and one for the order."""
    return settings.num_steps, network.num_tokens, network.num_levels + 1


@torch.no_grad()
def decode_in_parallel(
    network: MaskGit,
    embed: Embed,
    memory: TextMemory,
    null_memory: TextMemory | None,
    uniform: Float[Tensor, "batch steps tokens draws"],
    settings: SamplingSettings,
    order: UnmaskingOrder,
    num_candidates: int | None = 1,
) -> DecodedTokens:
    """Draw the tokens of pictures, one per text.

    Args:
        network: In evaluation mode.
        embed: The tokenizer's embeddings of codes.
        memory: Texts of the pictures.
        null_memory: What guidance moves away from, one per text; needed if there is guidance. It may be of another
            length: a single word, as the null text is, costs least.
        uniform: Random numbers in [0, 1), in the shape of :func:`count_draws`. They are arguments so that a picture's
            tokens depend on its own seed, not on who else is in the batch.
        settings: Steps, guidance, temperature.
        order: Which tokens a step reveals.
        num_candidates: How many of the likeliest codes to report of every token; ``None`` reports none.

    Raises:
        ValueError: If there is guidance but no ``null_memory``, or more candidates than codes.
    """
    if settings.is_guided and null_memory is None:
        raise ValueError("Guidance above 0 moves away from another text; expected null_memory, which was not given.")
    if num_candidates is not None and not 1 <= num_candidates <= network.codebook_size:
        raise ValueError(f"num_candidates is {num_candidates}; expected 1 to {network.codebook_size}, the codes.")
    texts = (memory, null_memory) if settings.is_guided and null_memory else (memory,)
    canvas = _Canvas(network, embed, len(memory), num_candidates or 0, uniform.device)
    hidden = order.start(network.grid).to(uniform.device).expand(len(memory), -1)
    for step, num_left in enumerate(count_hidden(network.num_tokens, settings.num_steps)):
        num_revealed = hidden.shape[1] - num_left
        asked, rest = hidden.tensor_split([order.count_asked(hidden.shape[1], num_revealed)], dim=1)
        draws = _at(uniform[:, step], asked)
        guidance, temperature = settings.at(step / max(1, settings.num_steps - 1))
        states = canvas.think(texts, asked)
        guess = _guess(network, states, draws, guidance, temperature, settings.top_k, num_candidates or 0)
        share_left = 1 - (step + 1) / settings.num_steps
        kept = order.choose(guess.log_probabilities, draws[..., -1], num_revealed, share_left)
        canvas.reveal(_at(asked, kept), _at(guess.ids, kept), _at(guess.candidates, kept), _at(guess.shares, kept))
        is_left = torch.ones_like(asked, dtype=torch.bool).scatter(1, kept, False)
        hidden = torch.cat([asked[is_left].view(len(asked), -1), rest], dim=1)
    return DecodedTokens(canvas.ids, canvas.candidates, canvas.shares)


@dataclass(slots=True)
class _Guess:
    ids: Tensor
    log_probabilities: Tensor
    candidates: Tensor
    shares: Tensor


class _Canvas:
    """Pictures while they are decoded, as they are reported and as the network sees them."""

    def __init__(self, network: MaskGit, embed: Embed, batch: int, num_candidates: int, device: torch.device) -> None:
        num_tokens, num_levels = network.num_tokens, network.num_levels
        self.network = network
        self.embed = embed
        self.ids = torch.zeros(batch, num_tokens, num_levels, dtype=torch.long, device=device)
        self.candidates = torch.zeros(batch, num_tokens, num_levels, num_candidates, dtype=torch.long, device=device)
        self.shares = torch.zeros(batch, num_tokens, num_levels, num_candidates, device=device)
        self._embeddings = torch.zeros_like(embed(self.ids[:1])).repeat(batch, 1, 1)
        self._is_hidden = torch.ones(batch, num_tokens, dtype=torch.bool, device=device)
        self._rows = torch.arange(batch, device=device)[:, None]

    def think(self, texts: Sequence[TextMemory], asked: Tensor) -> Tensor:
        """States of the asked tokens, for each of the texts: texts, batch, asked, width."""
        states: Tensor = self.network(self._embeddings, self._is_hidden, *texts)
        return states.view(len(texts), *self._embeddings.shape[:2], -1)[:, self._rows, asked]

    def reveal(self, positions: Tensor, ids: Tensor, candidates: Tensor, shares: Tensor) -> None:
        """Write what was guessed."""
        at = self._rows, positions
        self.ids[at], self.candidates[at], self.shares[at] = ids, candidates, shares
        self._embeddings[at] = self.embed(ids)
        self._is_hidden[at] = False


def _guess(
    network: MaskGit,
    states: Float[Tensor, "texts batch asked width"],
    draws: Float[Tensor, "batch asked draws"],
    guidance: float,
    temperature: float,
    top_k: int | None,
    num_candidates: int,
) -> _Guess:
    """Draw a code of every level in turn: each head knows what was drawn before."""
    # Heads are linear, and what the levels before add is the same in both halves: guiding the states guides the logits.
    states = torch.lerp(states[1], states[0], 1 + guidance) if len(states) == 2 else states[0]
    ids = torch.zeros(*states.shape[:2], 0, dtype=torch.long, device=states.device)
    log_probabilities = torch.zeros(states.shape[:2], device=states.device)
    candidates, shares = [], []
    for level in range(network.num_levels):
        logits = network.guess(states, ids).float() / temperature
        log_shares = _keep_top(logits, top_k).log_softmax(-1)
        drawn = sample_categorical(log_shares, draws[..., level])[..., None]
        log_probabilities += log_shares.gather(-1, drawn)[..., 0]
        ids = torch.cat([ids, drawn], dim=-1)
        likeliest = log_shares.topk(num_candidates, dim=-1)
        candidates.append(likeliest.indices)
        shares.append(likeliest.values.softmax(-1))
    return _Guess(ids, log_probabilities, torch.stack(candidates, dim=-2), torch.stack(shares, dim=-2))


def _keep_top(logits: Tensor, top_k: int | None) -> Tensor:
    if top_k is None or top_k >= logits.shape[-1]:
        return logits
    least = logits.topk(top_k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def _at(values: Tensor, positions: Int[Tensor, "batch chosen"]) -> Tensor:
    """Pick positions of the second dimension, others for every row."""
    return values[torch.arange(len(values), device=values.device)[:, None], positions]
