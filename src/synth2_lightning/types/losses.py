"""Outputs of training and evaluation steps."""

from dataclasses import dataclass
from typing import TypedDict

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """Summed negative log-likelihood (nats) and number of target tokens of every row of a batch.

    Sums and counts, not means: so that losses of several sources, ranks or accumulated steps can be added up.

    Example:
        >>> float(TokenLoss(torch.tensor([2.0, 4.0]), torch.tensor([1, 2])).mean())
        2.0
    """

    sums: Float[Tensor, " batch"]
    counts: Int[Tensor, " batch"]

    def mean(self) -> Float[Tensor, ""]:
        """Mean loss per target token (nats).

        Raises:
            ValueError: If no row has a target token: its loss of zero would be silent nonsense.
        """
        total = self.counts.sum()
        if int(total) == 0:
            raise ValueError(
                f"None of the {len(self.counts)} captions of this batch has a target token, so there is nothing to "
                "learn from; expected at least one. Look for empty captions in the data, or for a prompt that "
                "fills the decoder's whole length."
            )
        return self.sums.sum() / total


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Images that went through a tokenizer and back, on the way to a loss.

    Args:
        pixels: What came back; -1 is black, 1 is white, and nothing is clamped.
        target: What went in, at the tokenizer's size; from -1 to 1.
        commitment: Mean squared distance of the encoder's outputs to their codes.
        ids: The codes in between.
        num_revived: Codes that nobody chose and that started again elsewhere, since the process began.
    """

    pixels: Float[Tensor, "batch 3 height width"]
    target: Float[Tensor, "batch 3 height width"]
    commitment: Float[Tensor, ""]
    ids: Int[Tensor, "batch tokens levels"]
    num_revived: int = 0


@dataclass(frozen=True, slots=True)
class Quantization:
    """Features of images beside what a codebook makes of them.

    Args:
        features: What the frozen encoder said.
        quantized: The sum of the chosen codes over the levels.
        ids: The chosen codes.
    """

    features: Float[Tensor, "batch tokens dim"]
    quantized: Float[Tensor, "batch tokens dim"]
    ids: Int[Tensor, "batch tokens levels"]


class CaptionOutput(TypedDict):
    """What ``validation_step``, ``test_step`` and ``predict_step`` return."""

    keys: tuple[str, ...]
    captions: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
