"""A causal language model of transformers that answers prompts."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from synth2_lightning.compat.transformers import cache_name, run_network
from synth2_lightning.decoders.causal import only_at
from synth2_lightning.decoders.language_model import LanguageModelSource
from synth2_lightning.decoders.logits_processors import NO_REPETITION_SETTINGS, repetition_processors
from synth2_lightning.decoders.merged import save_language_model
from synth2_lightning.interfaces import PromptedLanguageModel
from synth2_lightning.nn.cpu_kernels import negative_log_likelihood
from synth2_lightning.nn.prompt_tokens import ChatPromptTokenizer, ChatPromptTokens
from synth2_lightning.nn.transfer import to_device
from synth2_lightning.types import GenerationSettings, Prompt, TokenLoss

_ROWS_ON_CPU = 8
"""Rows per forward pass on a CPU; they have similar lengths, so that there is little padding."""


class _Row(NamedTuple):
    prompt: ChatPromptTokens
    text: list[int]

    @property
    def length(self) -> int:
        return len(self.prompt.suffix) + len(self.text)


class PromptedCausalModel(PromptedLanguageModel):
    """Causal language model of transformers, with LoRA or trainable.

    Prompts are rendered as by :class:`~synth2_lightning.generators.language_model.LanguageModelCaptionGenerator`. The
    messages before the last user message are processed once per forward pass, not once per text, and logits are
    computed at the targets only.

    Args:
        source: Builds the language model.
        max_text_tokens: Truncate texts to this number of tokens, after which no end-of-text token follows.

    Raises:
        ValueError: If ``max_text_tokens`` is below 1.
    """

    def __init__(self, source: LanguageModelSource, max_text_tokens: int = 64) -> None:
        super().__init__()
        if max_text_tokens < 1:
            raise ValueError(f"PromptedCausalModel.max_text_tokens is {max_text_tokens}; expected 1 or more.")
        self.source = source
        self.max_text_tokens = max_text_tokens
        self.lm: Any = None
        self._published: Any = None

    def _load(self) -> None:
        from transformers import GenerationConfig

        self.lm = self.source.build()
        # The settings published with a model would mix with ours; an export keeps them.
        self._published, self.lm.generation_config = self.lm.generation_config, GenerationConfig()
        self.train(self.training)

    def loss(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> TokenLoss:
        """Return the loss of each text; texts of similar lengths are processed together on a CPU."""
        rows = self._tokenize(prompts, texts)
        passes = list(self._group(rows))
        sums = torch.cat([self._sum_losses([rows[index] for index in members]) for members in passes])
        order = torch.tensor([index for members in passes for index in members]).argsort()
        counts = torch.tensor([len(row.text) for row in rows])
        return TokenLoss(sums.index_select(0, to_device(order, sums.device)), to_device(counts, sums.device))

    @torch.no_grad()
    def generate(self, prompts: Sequence[Prompt], settings: GenerationSettings) -> list[str]:
        """Return an answer to each prompt, by ``generate`` of transformers.

        Raises:
            ValueError: If the answers may get too long for the language model.
        """
        from transformers import GenerationConfig, LogitsProcessorList

        tokens = [self._prompt_tokenizer.encode(prompt) for prompt in prompts]
        rows = [torch.tensor(each.prefix + each.suffix) for each in tokens]
        ids, mask = (
            pad_sequence(part, batch_first=True, padding_side="left").to(self.lm.device)
            for part in (rows, [torch.ones_like(row) for row in rows])
        )
        num_prompt = ids.shape[1]
        self._check_length(num_prompt + settings.max_new_tokens - 1, "max_new_tokens")  # the last token is no input
        config = GenerationConfig(
            **(asdict(settings) | NO_REPETITION_SETTINGS),
            top_k=0 if settings.do_sample else None,  # the default of transformers is 50
            eos_token_id=self._eos_id,
            pad_token_id=self._eos_id,
        )
        found = self.lm.generate(
            inputs=ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=LogitsProcessorList(repetition_processors(settings, num_prompt)),
        )
        return [text.strip() for text in self.source.tokenizer.batch_decode(found[:, num_prompt:], True)]

    def export(self, folder: Path) -> None:
        """Write a folder for ``from_pretrained`` of transformers; see :func:`save_language_model`."""
        save_language_model(folder, self.lm, self.source.tokenizer, self._published)

    @cached_property
    def _prompt_tokenizer(self) -> ChatPromptTokenizer:
        return ChatPromptTokenizer(self.source.tokenizer)

    @cached_property
    def _eos_id(self) -> int:
        if self.source.tokenizer.eos_token_id is None:
            raise ValueError(
                f"The tokenizer {self.source.tokenizer.name_or_path!r} has no end-of-text token, so no answer would "
                "end; expected an eos_token. Add it to the tokenizer_config.json."
            )
        return int(self.source.tokenizer.eos_token_id)

    def _tokenize(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[_Row]:
        tokenized = self.source.tokenizer([text.strip() for text in texts], add_special_tokens=False)
        rows = []
        for prompt, text, ids in zip(prompts, texts, tokenized["input_ids"], strict=True):
            row = _Row(self._prompt_tokenizer.encode(prompt), [*ids, self._eos_id][: self.max_text_tokens])
            if not ids:
                raise ValueError(
                    f"The text {text!r} has no word; expected at least one, because an empty text has no loss. Remove "
                    "such texts from the data."
                )
            if not row.prompt.suffix:
                raise ValueError(
                    f"The prompt {prompt[-1].content!r} has {len(row.prompt.prefix)} token; expected 2 or more. Write "
                    "a longer request."
                )
            self._check_length(len(row.prompt.prefix) + row.length, "max_text_tokens")
            rows.append(row)
        return rows

    def _check_length(self, length: int, setting: str) -> None:
        most = getattr(self.lm.config.get_text_config(), "max_position_embeddings", None)
        if most is not None and length > most:
            raise ValueError(
                f"A text needs {length} positions with its prompt; expected at most {most}, the language model's "
                f"context. Shorten the prompt, use fewer examples, or lower {setting}."
            )

    def _group(self, rows: Sequence[_Row]) -> Iterator[list[int]]:
        """Yield the rows of each forward pass, which have the same prefix and, on a CPU, similar lengths."""
        by_prefix: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index in sorted(range(len(rows)), key=lambda index: rows[index].length):
            by_prefix[rows[index].prompt.prefix].append(index)
        most = _ROWS_ON_CPU if self.lm.device.type == "cpu" else len(rows)
        for members in by_prefix.values():
            yield from (members[start : start + most] for start in range(0, len(members), most))

    def _sum_losses(self, rows: Sequence[_Row]) -> Float[Tensor, " rows"]:
        """Return the summed loss of each row; all rows have the same prefix."""
        device = self.lm.device
        prefix = to_device(torch.tensor([rows[0].prompt.prefix]), device)
        sequences = [torch.tensor([*row.prompt.suffix, *row.text]) for row in rows]
        inputs = pad_sequence([sequence[:-1] for sequence in sequences], batch_first=True)
        targets = pad_sequence([sequence[1:] for sequence in sequences], batch_first=True)
        starts = torch.tensor([len(row.prompt.suffix) - 1 for row in rows])[:, None]
        ends = torch.tensor([row.length - 1 for row in rows])[:, None]
        positions = torch.arange(inputs.shape[1])
        is_target = (positions >= starts) & (positions < ends)
        # Keys and values of the prefix are the same in all rows; gradients of the rows add up in them.
        cache = self.lm(input_ids=prefix, use_cache=True, logits_to_keep=1)[cache_name()]
        cache.batch_repeat_interleave(len(rows))
        where = to_device(is_target.flatten().nonzero().squeeze(1), device)
        with only_at(self.lm.get_output_embeddings(), where):
            # Padding is on the right, so causal attention excludes it.
            mask = torch.ones(len(rows), prefix.shape[1] + inputs.shape[1], dtype=torch.long, device=device)
            outputs = run_network(
                self.lm,
                has_padding=False,
                input_ids=to_device(inputs, device),
                attention_mask=mask,
                use_cache=True,
                **{cache_name(): cache},
            )
        losses = negative_log_likelihood(outputs.logits, to_device(targets[is_target], device))
        # The backward pass of masked_scatter would wait for the device.
        return losses.new_zeros(is_target.numel()).index_copy(0, where, losses).view(is_target.shape).sum(1)
