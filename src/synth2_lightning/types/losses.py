"""Outputs of training and evaluation steps."""

from dataclasses import dataclass
from typing import TypedDict

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """Summed negative log-likelihood (nats) and number of target tokens of every row of a batch, or weighted ones.

    Sums and counts, unlike means, can be added over sources, ranks and accumulated steps.

    Example:
        >>> import torch
        >>> float(TokenLoss(torch.tensor([2.0, 4.0]), torch.tensor([1, 2])).mean())
        2.0
    """

    sums: Float[Tensor, " batch"]
    counts: Int[Tensor, " batch"] | Float[Tensor, " batch"]

    def weighted(self, weights: Float[Tensor, " batch"] | None) -> "TokenLoss":
        """Return the loss with weighted rows; unchanged for ``None``.

        Sums and numbers of tokens are multiplied, so that each mean over tokens is a weighted one, also over ranks and
        accumulated batches.

        Example:
            >>> import torch
            >>> losses = TokenLoss(torch.tensor([2.0, 4.0]), torch.tensor([1, 2]))
            >>> losses.weighted(torch.tensor([1.0, 0.5])).counts
            tensor([1., 1.])
        """
        return self if weights is None else TokenLoss(self.sums * weights, self.counts * weights)

    def mean(self) -> Float[Tensor, ""]:
        """Mean loss per target token (nats).

        Raises:
            ValueError: If no row has a target token.
        """
        total = self.counts.sum()
        if total == 0:
            raise ValueError(
                f"None of the {len(self.counts)} captions of this batch has a target token; expected at least one. "
                "Check the data for empty captions, or for a prompt that fills the decoder's maximum length."
            )
        return self.sums.sum() / total


@dataclass(frozen=True, slots=True)
class SampledTexts:
    """Texts sampled from a language decoder.

    Args:
        texts: Without prompts and special tokens; a text may be empty.
        is_complete: Whether each text ended with an end-of-text token, and not at the maximum length.
        losses: Negative log-likelihood of the sampled tokens, end-of-text tokens included, with gradients.
    """

    texts: tuple[str, ...]
    is_complete: tuple[bool, ...]
    losses: TokenLoss


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Images reconstructed by a tokenizer, with the terms of its loss.

    Args:
        pixels: Reconstruction; -1 is black, 1 is white, not clamped.
        target: Input at the tokenizer's size, in [-1, 1].
        commitment: Mean squared distance of the encoder's outputs to their codes.
        ids: Codebook ids.
        num_revived: Number of dead codes that were re-initialized since the process started.
    """

    pixels: Float[Tensor, "batch 3 height width"]
    target: Float[Tensor, "batch 3 height width"]
    commitment: Float[Tensor, ""]
    ids: Int[Tensor, "batch tokens levels"]
    num_revived: int = 0


@dataclass(frozen=True, slots=True)
class Quantization:
    """Features of images before and after quantization.

    Args:
        features: Outputs of the frozen encoder.
        quantized: Sum of the selected codes over the levels.
        ids: Codebook ids of the selected codes.
    """

    features: Float[Tensor, "batch tokens dim"]
    quantized: Float[Tensor, "batch tokens dim"]
    ids: Int[Tensor, "batch tokens levels"]


class CaptionOutput(TypedDict):
    """Outputs of ``validation_step``, ``test_step`` and ``predict_step``."""

    keys: tuple[str, ...]
    captions: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
