from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from synth2_lightning.nn.prompt_tokens import ChatPromptTokenizer
from synth2_lightning.types import ChatMessage, Prompt

Save = Callable[..., str]
PROMPT: Prompt = (ChatMessage("system", "a picture of one"), ChatMessage("user", "circle"))


def load(folder: str) -> Any:
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("template", "prefix", "suffix"),
    [
        (True, "<s> system : a picture of one </s>", "<s> user : circle </s> <s> assistant :"),
        (False, "a picture of one", "circle"),
    ],
)
def test_messages_before_the_last_one_form_the_prefix(
    save_model: Save, template: bool, prefix: str, suffix: str
) -> None:
    tokenizer = load(save_model("llama") if template else save_model("llama", None))
    tokens = ChatPromptTokenizer(tokenizer).encode(PROMPT)
    expected = [tuple(tokenizer(text, add_special_tokens=False).input_ids) for text in (prefix, f" {suffix}")]
    assert tokens.prefix == expected[0]
    assert tokenizer.decode(tokens.suffix).split() == tokenizer.decode(expected[1]).split()
    assert (tokens.opening, tokens.reasoning) == ((), "")


def test_an_opening_ends_the_suffix(save_model: Save) -> None:
    tokenizer = load(save_model("llama"))
    opened = ChatPromptTokenizer(tokenizer).encode((*PROMPT, ChatMessage("assistant", "a red circle")))
    closed = ChatPromptTokenizer(tokenizer).encode(PROMPT)
    assert tokenizer.decode(opened.opening) == "a red circle"
    assert opened.suffix == closed.suffix + opened.opening


def test_one_message_has_its_first_token_as_prefix(save_model: Save) -> None:
    tokenizer = load(save_model("llama"))
    tokens = ChatPromptTokenizer(tokenizer).encode(PROMPT[1:])
    assert tokens.prefix == (tokenizer.bos_token_id,)
    assert len(tokens.suffix) > 3


def test_reasoning_that_the_template_opens_is_kept(save_model: Save) -> None:
    tokenizer = load(save_model("llama", "{{ messages[-1].content }} <think>"))
    assert ChatPromptTokenizer(tokenizer).encode(PROMPT).reasoning == "<think>"


class LlamaTokenizer:
    """A tokenizer without a chat template that begins texts with a token."""

    chat_template = None
    bos_token_id = 1

    def __call__(self, text: str, add_special_tokens: bool = True) -> SimpleNamespace:
        return SimpleNamespace(
            input_ids=[self.bos_token_id] * add_special_tokens + [2 + ord(letter) for letter in text]
        )


def test_a_model_without_a_template_receives_the_token_that_begins_its_texts() -> None:
    tokenizer = ChatPromptTokenizer(LlamaTokenizer())
    tokens = tokenizer.encode(PROMPT)
    assert tokens.prefix == tuple(LlamaTokenizer()("a picture of one\n\n").input_ids)
    assert tokens.suffix == tuple(LlamaTokenizer()("circle\n\n", add_special_tokens=False).input_ids)
    single = tokenizer.encode(PROMPT[1:])
    assert (single.prefix, single.suffix) == ((1,), tokens.suffix)
