"""Texts and prompts as token ids: what a language model reads, and what it shall say."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True, slots=True)
class TargetTokens:
    """What the model reads, and which token it shall say next where ``is_target``; padded on the right."""

    inputs: Int[Tensor, "batch length"]
    targets: Int[Tensor, "batch length"]
    is_target: Bool[Tensor, "batch length"]


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """What the model reads before it writes; padded on the left, where ``mask`` is false."""

    inputs: Int[Tensor, "batch length"]
    mask: Bool[Tensor, "batch length"]


class CaptionTokenizer:
    """Turns captions into ids and back, by the rules that training and generation must share.

    A text follows its prompt after a space, unless the prompt ends in a line break; without a prompt it follows the
    tokenizer's beginning of text (or its end of text, in vocabularies such as GPT-2's that have no beginning). It is
    followed by the tokenizer's end of text. Special tokens may be written out in the prompt: ``<|im_start|>user``.

    Args:
        tokenizer: A fast tokenizer of transformers.
        prompt: What stands before texts that come without a prompt of their own.
        max_text_tokens: Cut texts after so many tokens; a cut text has no end to learn. ``None`` cuts nothing.

    Raises:
        ValueError: If the tokenizer has no end of text.
    """

    def __init__(self, tokenizer: Any, prompt: str, max_text_tokens: int | None) -> None:
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"The tokenizer {tokenizer.name_or_path!r} has no end of text, so a caption would never end; expected "
                "eos_token in its tokenizer_config.json."
            )
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.max_text_tokens = max_text_tokens
        self.end: int = tokenizer.eos_token_id
        self.beginning: int = self.end if tokenizer.bos_token_id is None else tokenizer.bos_token_id

    def encode(self, texts: Sequence[str], prompts: Sequence[str] | None) -> TargetTokens:
        """Read prompts and texts; the texts and their ends are the targets.

        Raises:
            ValueError: If a text is empty.
        """
        prompts = [self.prompt] * len(texts) if prompts is None else prompts
        before = self._encode_prompts(prompts)
        inputs, targets, is_target = [], [], []
        for text, prompt, ids in zip(texts, before, self._encode_texts(texts, prompts), strict=True):
            if not ids:
                raise ValueError(
                    f"The caption {text!r} has no word, so there is nothing to learn from it; expected at least one. "
                    "Drop such captions from the data."
                )
            said = [*ids, self.end][: self.max_text_tokens]
            silent = len(prompt) - 1
            inputs.append(torch.tensor(prompt + said[:-1]))
            targets.append(torch.tensor([0] * silent + said))
            is_target.append(torch.arange(silent + len(said)) >= silent)
        return TargetTokens(*(pad_sequence(rows, batch_first=True) for rows in (inputs, targets, is_target)))

    def encode_prompts(self, prompts: Sequence[str]) -> PromptTokens:
        """Read prompts alone."""
        rows = [torch.tensor(ids) for ids in self._encode_prompts(prompts)]
        masks = [torch.ones(len(row), dtype=torch.bool) for row in rows]
        return PromptTokens(*(pad_sequence(part, batch_first=True, padding_side="left") for part in (rows, masks)))

    def word_numbers(self, texts: Sequence[str]) -> list[list[int]]:
        """Say of every token of every text which of its words, as ``text.split()`` gives them, it is part of.

        A token that holds several words, or a space beside one, belongs to the one that it ends in.
        """
        joined = _join(texts, [self.prompt] * len(texts))
        encoded = self.tokenizer(joined, add_special_tokens=False, return_offsets_mapping=True)
        numbers = []
        for text, spans in zip(joined, encoded["offset_mapping"], strict=True):
            starts = [at for at, letter in enumerate(text) if not letter.isspace() and not text[:at][-1:].strip()]
            numbers.append([max(0, bisect_left(starts, end) - 1) for _, end in spans])
        return numbers

    def decode(self, ids: Int[Tensor, "batch length"]) -> list[str]:
        """Turn ids into texts, without special tokens."""
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def _encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        different = list(dict.fromkeys(prompts))
        encoded = self.tokenizer([prompt.rstrip(" ") for prompt in different])["input_ids"]
        ids = {prompt: row or [self.beginning] for prompt, row in zip(different, encoded, strict=True)}
        return [ids[prompt] for prompt in prompts]

    def _encode_texts(self, texts: Sequence[str], prompts: Sequence[str]) -> list[list[int]]:
        encoded: list[list[int]] = self.tokenizer(_join(texts, prompts), add_special_tokens=False)["input_ids"]
        return encoded


def _join(texts: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """Give each text as it follows its prompt."""
    return [
        text.strip() if not prompt or prompt.endswith("\n") else f" {text.strip()}".rstrip()
        for text, prompt in zip(texts, prompts, strict=True)
    ]
