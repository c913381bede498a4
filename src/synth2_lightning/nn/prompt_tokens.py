"""Token ids of chat prompts, the same for fine-tuning a language model and for generation."""

import re
from dataclasses import dataclass
from typing import Any

from synth2_lightning.types import Prompt

_OPENED_REASONING = re.compile(r"(?:<\|?[\w:]*(?:think|thinking|thought|reasoning)\|?>|\[THINK\])\s*\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ChatPromptTokens:
    """Token ids of a chat prompt, in two parts.

    Args:
        prefix: All messages before the last user message; at least one token.
        suffix: The rest: the last user message, the beginning of the answer, and the opening.
        opening: Given start of the answer, the end of the suffix; empty if there is none.
        reasoning: Reasoning tag that the chat template opens; empty if there is none.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    opening: tuple[int, ...] = ()
    reasoning: str = ""


class ChatPromptTokenizer:
    r"""Renders prompts by the model's chat template, and splits them into a prefix that many share and the rest.

    A model without a chat template receives the messages as paragraphs, after the token that begins its texts. If the
    last message is the assistant's, it is the start of the answer.

    Args:
        tokenizer: Tokenizer of a causal language model of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        # Llama's and Gemma's tokenizers begin each text with a token, which chat templates contain; GPT-2's does not.
        begins = tokenizer.chat_template is None and tokenizer.bos_token_id in tokenizer("").input_ids[:1]
        self._first = (tokenizer.bos_token_id,) if begins else ()

    def encode(self, prompt: Prompt) -> ChatPromptTokens:
        """Return the token ids of a prompt."""
        opening = prompt[-1].content if prompt[-1].role == "assistant" else ""
        messages = prompt[:-1] if opening else prompt
        prefix = self._render(messages[:-1], add_generation_prompt=False)
        text = self._render(messages, add_generation_prompt=True)
        if not text.startswith(prefix):  # the template's start depends on later messages
            prefix = ""
        ids, suffix, opened = (
            tuple(self.tokenizer(part, add_special_tokens=False).input_ids)
            for part in (prefix, text.removeprefix(prefix), opening)
        )
        ids, suffix = self._first + ids, suffix + opened
        tag = None if opening else _OPENED_REASONING.search(text[-64:])
        return ChatPromptTokens(*((ids, suffix) if ids else (suffix[:1], suffix[1:])), opened, tag[0] if tag else "")

    def _render(self, messages: Prompt, add_generation_prompt: bool) -> str:
        if self.tokenizer.chat_template is None:
            return "".join(f"{message.content}\n\n" for message in messages)
        if not messages:
            return ""
        chat = [{"role": message.role, "content": message.content} for message in messages]
        return str(
            self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=add_generation_prompt)
        )
