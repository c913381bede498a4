"""Tokenization of captions for a text encoder, with truncation and padding."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

_logger = logging.getLogger(__name__)


class TextTokenizer:
    """Tokenizes captions; truncates and counts long ones, and logs a warning once.

    Special tokens are kept in truncated captions.

    Args:
        tokenizer: Fast tokenizer of transformers.
        max_length: Maximum number of tokens per text, including special tokens.
        num_positions: Number of positions of the network; ``None`` if unlimited.

    Attributes:
        num_truncated: Number of texts truncated so far.

    Raises:
        ValueError: If ``max_length`` is too small for one word or exceeds ``num_positions``.
    """

    def __init__(self, tokenizer: Any, max_length: int, num_positions: int | None) -> None:
        shortest = tokenizer.num_special_tokens_to_add() + 1
        if max_length < shortest or (num_positions is not None and max_length > num_positions):
            bound = "" if num_positions is None else f" and at most {num_positions} (positions of the network)"
            raise ValueError(
                f"max_length is {max_length}; expected at least {shortest} (one word and the special tokens of "
                f"tokenizer {tokenizer.name_or_path!r}){bound}."
            )
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.num_truncated = 0

    def tokenize(self, texts: Sequence[str]) -> tuple[Int[Tensor, "batch length"], Bool[Tensor, "batch length"]]:
        """Return token ids, padded on the right, and a mask that is false at padding.

        Raises:
            ValueError: If a caption contains no word.
        """
        encodings = self.tokenizer(list(texts), truncation=True, max_length=self.max_length).encodings
        for text, encoding in zip(texts, encodings, strict=True):
            if not text.strip() or all(encoding.special_tokens_mask):
                raise ValueError(
                    f"The caption {text!r} has no word; expected at least one. Remove such captions from the data."
                )
        self._count_truncated([text for text, encoding in zip(texts, encodings, strict=True) if encoding.overflowing])
        rows = [torch.tensor(encoding.ids) for encoding in encodings]
        masks = [torch.ones(len(row), dtype=torch.bool) for row in rows]
        return pad_sequence(rows, batch_first=True), pad_sequence(masks, batch_first=True)

    def _count_truncated(self, truncated: list[str]) -> None:
        if truncated and not self.num_truncated:
            _logger.warning(
                "The caption %r is longer than max_length=%d tokens and was truncated. Raise max_length of the text "
                "encoder, up to the number of positions of its network, or shorten the captions. This warning is "
                "logged once; num_truncated counts all truncated captions.",
                truncated[0],
                self.max_length,
            )
        self.num_truncated += len(truncated)
