"""Captions as token ids for a text encoder: cut, counted and padded."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TextTokens:
    """What a text network reads; padded on the right, where ``mask`` is false."""

    ids: Int[Tensor, "batch length"]
    mask: Bool[Tensor, "batch length"]


class TextReader:
    """Turns captions into ids; what is too long is cut and counted, and told once.

    The tokenizer adds the special tokens that its network knows, and keeps them where it cuts.

    Args:
        tokenizer: A fast tokenizer of transformers.
        max_length: Most tokens of a text, special ones included.
        num_positions: Positions that the network has; ``None`` where it has no bound.

    Attributes:
        num_truncated: Texts that were cut so far.

    Raises:
        ValueError: If ``max_length`` leaves no room for a word, or is more than the network reads.
    """

    def __init__(self, tokenizer: Any, max_length: int, num_positions: int | None) -> None:
        shortest = tokenizer.num_special_tokens_to_add() + 1
        if max_length < shortest or (num_positions is not None and max_length > num_positions):
            bound = "" if num_positions is None else f" and at most {num_positions}, the positions of the network"
            raise ValueError(
                f"max_length is {max_length}; expected at least {shortest}, a word and the special tokens of the "
                f"tokenizer {tokenizer.name_or_path!r},{bound}."
            )
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.num_truncated = 0

    def read(self, texts: Sequence[str]) -> TextTokens:
        """Read captions.

        Raises:
            ValueError: If a caption has no word.
        """
        encodings = self.tokenizer(list(texts), truncation=True, max_length=self.max_length).encodings
        for text, encoding in zip(texts, encodings, strict=True):
            if not text.strip() or all(encoding.special_tokens_mask):
                raise ValueError(
                    f"The caption {text!r} has no word, so it says nothing about a picture; expected at least one. "
                    "Drop such captions from the data."
                )
        self._count([text for text, encoding in zip(texts, encodings, strict=True) if encoding.overflowing])
        rows = [torch.tensor(encoding.ids) for encoding in encodings]
        masks = [torch.ones(len(row), dtype=torch.bool) for row in rows]
        return TextTokens(pad_sequence(rows, batch_first=True), pad_sequence(masks, batch_first=True))

    def _count(self, cut: list[str]) -> None:
        if cut and not self.num_truncated:
            _logger.warning(
                "The caption %r is longer than max_length=%d tokens: its end was cut off and says nothing about the "
                "picture. Raise max_length of the text encoder, as far as its network has positions, or shorten the "
                "captions. This is told once; num_truncated counts on.",
                cut[0],
                self.max_length,
            )
        self.num_truncated += len(cut)
