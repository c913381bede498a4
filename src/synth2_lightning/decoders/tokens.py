"""Token ids of prompts and captions, for training and for generation."""

import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

_logger = logging.getLogger(__name__)
_MAX_UNKNOWN = 0.2
"""Fraction of unknown tokens in the first captions that is not warned of; real vocabularies leave out a few percent."""


@dataclass(frozen=True, slots=True)
class TargetTokens:
    """Input ids and the next token of each position, a target where ``is_target``; padded on the right."""

    inputs: Int[Tensor, "batch length"]
    targets: Int[Tensor, "batch length"]
    is_target: Bool[Tensor, "batch length"]

    def lengths(self) -> Int[Tensor, " batch"]:
        """Return the number of positions of each row up to its last target."""
        return (self.is_target * torch.arange(1, self.is_target.shape[1] + 1)).amax(1)

    def select(self, rows: Int[Tensor, " rows"]) -> "TargetTokens":
        """Return some rows, without the padding that is common to them."""
        length = int(self.lengths()[rows].max())
        return TargetTokens(*(part[rows, :length] for part in (self.inputs, self.targets, self.is_target)))


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """Input ids of prompts; padded on the left, where ``mask`` is false."""

    inputs: Int[Tensor, "batch length"]
    mask: Bool[Tensor, "batch length"]


class CaptionTokenizer:
    """Converts captions to token ids and back, in the same way for training and generation.

    A text follows its prompt after a space, unless the prompt ends in a line break. Without a prompt it follows the
    beginning-of-text token, or the end-of-text token in vocabularies that have no other, such as GPT-2's. An
    end-of-text token follows the text. A prompt may contain special tokens: ``<|im_start|>user``.

    Args:
        tokenizer: A fast tokenizer of transformers.
        prompt: Text before texts that have no prompt of their own.
        max_text_tokens: Truncate texts to this number of tokens, after which no end-of-text token follows; ``None``
            truncates none.

    Raises:
        ValueError: If the tokenizer has no end-of-text token.

    Example:
        >>> from synth2_lightning.decoders.language_model import NewLanguageModel
        >>> model = NewLanguageModel({"model_type": "gpt2"}, "package://synth2_lightning/scenes/vocabulary")
        >>> tokens = CaptionTokenizer(model.tokenizer, "", None).encode(["a red circle"], None)
        >>> tokens.inputs.shape, tokens.is_target.sum()  # beginning of text and 3 words; 3 words and end of text
        (torch.Size([1, 4]), tensor(4))
    """

    def __init__(self, tokenizer: Any, prompt: str, max_text_tokens: int | None) -> None:
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"The tokenizer {tokenizer.name_or_path!r} has no end-of-text token, so no caption would end; expected "
                "an eos_token. Add it to the tokenizer_config.json."
            )
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.max_text_tokens = max_text_tokens
        self.eos_id: int = tokenizer.eos_token_id
        self.bos_id: int = self.eos_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        self.pad_id: int = self.eos_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self._is_checked = False

    def encode(self, texts: Sequence[str], prompts: Sequence[str] | None) -> TargetTokens:
        """Encode prompts and texts; the tokens of the texts, and the end-of-text tokens, are the targets.

        Raises:
            ValueError: If a text is empty, or the number of prompts is not that of the texts.
        """
        prompts = self.fill_prompts(prompts, len(texts))
        encoded = self.tokenizer(_join(texts, prompts), add_special_tokens=False, return_attention_mask=False)
        predicted = []
        for text, ids in zip(texts, encoded["input_ids"], strict=True):
            if not ids:
                raise ValueError(
                    f"The caption {text!r} has no word; expected at least one, because an empty caption has no loss. "
                    "Remove such captions from the data."
                )
            predicted.append([*ids, self.eos_id][: self.max_text_tokens])
        self._check_vocabulary(encoded["input_ids"])
        return self._follow(prompts, predicted)

    def encode_generated(self, ids: Int[Tensor, "batch length"], prompts: Sequence[str]) -> TargetTokens:
        """Encode prompts and generated tokens; these, up to the first end-of-text token, are the targets.

        Encoding the decoded text could return other tokens, and would add an end-of-text token to a text without.
        """
        return self._follow(prompts, [self._until_end(row) for row in ids.tolist()])

    def fill_prompts(self, prompts: Sequence[str] | None, num_texts: int) -> Sequence[str]:
        """Return one prompt per text: the given ones, or the default.

        Raises:
            ValueError: If the number of prompts is not that of the texts.
        """
        if prompts is None:
            return [self.prompt] * num_texts
        if len(prompts) != num_texts:
            raise ValueError(f"There are {num_texts} texts and {len(prompts)} prompts; expected one per text, or none.")
        return prompts

    def encode_prompts(self, prompts: Sequence[str]) -> PromptTokens:
        """Encode prompts for generation."""
        rows = [torch.tensor(ids) for ids in self._encode_prompts(prompts)]
        masks = [torch.ones(len(row), dtype=torch.bool) for row in rows]
        return PromptTokens(*(pad_sequence(part, batch_first=True, padding_side="left") for part in (rows, masks)))

    def word_indices(self, texts: Sequence[str]) -> list[list[int]]:
        """Return for each token of each text the index of its word among ``text.split()``.

        A token that covers several words, or a space beside one, belongs to the word in which it ends.
        """
        joined = _join(texts, [self.prompt] * len(texts))
        encoded = self.tokenizer(joined, add_special_tokens=False, return_offsets_mapping=True)
        indices = []
        for text, spans in zip(joined, encoded["offset_mapping"], strict=True):
            starts = [at for at, letter in enumerate(text) if not letter.isspace() and not text[:at][-1:].strip()]
            indices.append([max(0, bisect_left(starts, end) - 1) for _, end in spans])
        return indices

    def decode(self, ids: Int[Tensor, "batch length"]) -> list[str]:
        """Return the texts of token ids, without special tokens."""
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def _check_vocabulary(self, rows: Sequence[list[int]]) -> None:
        """Warn, once, of captions that the vocabulary does not suit."""
        if self._is_checked:
            return
        self._is_checked = True
        num_unknown, num_tokens = sum(row.count(self.tokenizer.unk_token_id) for row in rows), sum(map(len, rows))
        if num_unknown > _MAX_UNKNOWN * num_tokens:
            _logger.warning(
                "%d of %d tokens of the first captions are %s, because the vocabulary lacks their words; expected few. "
                "Build one from your captions: synth2 vocabulary CAPTIONS --out FOLDER.",
                num_unknown,
                num_tokens,
                self.tokenizer.unk_token,
            )

    def _until_end(self, ids: list[int]) -> list[int]:
        return ids[: ids.index(self.eos_id) + 1] if self.eos_id in ids else ids

    def _follow(self, prompts: Sequence[str], predicted: Sequence[list[int]]) -> TargetTokens:
        prompt_ids = self._encode_prompts(prompts)
        rows = [before + ids for before, ids in zip(prompt_ids, predicted, strict=True)]
        # A batch may have a thousand rows: no operation of torch per row.
        lengths, num_given = (torch.tensor([len(row) for row in part])[:, None] for part in (rows, prompt_ids))
        positions = torch.arange(int(lengths.max()))
        is_token = positions < lengths
        padded = torch.zeros(is_token.shape, dtype=torch.long)
        padded[is_token] = torch.tensor(list(chain.from_iterable(rows)))
        is_target = (is_token & (positions >= num_given))[:, 1:]
        return TargetTokens(padded[:, :-1] * is_token[:, 1:], padded[:, 1:] * is_target, is_target)

    def _encode_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        distinct = list(dict.fromkeys(prompts))
        encoded = self.tokenizer([prompt.rstrip(" ") for prompt in distinct])["input_ids"]
        ids = {prompt: row or [self.bos_id] for prompt, row in zip(distinct, encoded, strict=True)}
        return [ids[prompt] for prompt in prompts]


def _join(texts: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """Return each text with the space that separates it from its prompt."""
    return [
        text.strip() if not prompt or prompt.endswith("\n") else f" {text.strip()}".rstrip()
        for text, prompt in zip(texts, prompts, strict=True)
    ]
