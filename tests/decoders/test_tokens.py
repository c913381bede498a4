from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from synth2_lightning.decoders.tokens import CaptionTokenizer


@pytest.fixture
def words(vocabulary: Path) -> Any:
    return AutoTokenizer.from_pretrained(vocabulary)


@pytest.fixture
def letters() -> Any:
    """A byte-level vocabulary such as GPT-2's, without a beginning-of-text token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({"<|end|>": 0} | {letter: i + 1 for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def test_a_text_follows_the_beginning_and_is_followed_by_the_end(words: Any) -> None:
    tokens = CaptionTokenizer(words, "", None).encode(["a circle", "two green triangles"], None)
    first, second = (words.convert_ids_to_tokens(row) for row in tokens.inputs.tolist())
    assert first == ["<s>", "▁a", "▁circle", "<pad>"]
    assert second == ["<s>", "▁two", "▁green", "▁triangles"]
    targets = [
        words.convert_ids_to_tokens(row[kept]) for row, kept in zip(tokens.targets, tokens.is_target, strict=True)
    ]
    assert targets == [["▁a", "▁circle", "</s>"], ["▁two", "▁green", "▁triangles", "</s>"]]


def test_a_prompt_has_no_targets(words: Any) -> None:
    tokens = CaptionTokenizer(words, "a dog", None).encode(["runs", "a circle"], ["the sun", "green"])
    assert words.convert_ids_to_tokens(tokens.inputs[0].tolist()) == ["▁the", "▁sun", "▁runs"]
    assert tokens.is_target.tolist() == [[False, True, True], [True, True, True]]
    assert words.convert_ids_to_tokens(tokens.targets[0][1:].tolist()) == ["▁runs", "</s>"]


@pytest.mark.parametrize(
    ("prompt", "read"),
    [("a photo of", "a photo of a dog"), ("a photo of ", "a photo of a dog"), ("Say:\n", "Say:\na dog"), ("", "a dog")],
)
def test_texts_follow_prompts_after_a_space_or_a_line_break(letters: Any, prompt: str, read: str) -> None:
    captions = CaptionTokenizer(letters, prompt, None)
    tokens = captions.encode([" a dog \n"], None)
    assert letters.decode(tokens.inputs[0], skip_special_tokens=True) == read
    targets = tokens.targets[0][tokens.is_target[0]]
    assert letters.decode(targets).strip() == "a dog<|end|>"


def test_without_a_beginning_a_text_follows_the_end(letters: Any) -> None:
    tokens = CaptionTokenizer(letters, "", None).encode(["a"], None)
    assert tokens.inputs.tolist() == [[0, letters("a")["input_ids"][0]]]


def test_long_texts_are_cut_on_demand_and_then_have_no_end(words: Any) -> None:
    tokens = CaptionTokenizer(words, "", 3).encode(["two green triangles", "a circle"], None)
    targets = [words.convert_ids_to_tokens(row) for row in tokens.targets.tolist()]
    assert targets == [["▁two", "▁green", "▁triangles"], ["▁a", "▁circle", "</s>"]]


def test_prompts_are_padded_on_the_left(words: Any) -> None:
    tokens = CaptionTokenizer(words, "", None).encode_prompts(["two green triangles", "", "a dog"])
    assert tokens.mask.tolist() == [[True] * 3, [False, False, True], [False, True, True]]
    assert tokens.inputs[1, -1] == words.bos_token_id


def test_decoded_texts_have_no_special_tokens(words: Any) -> None:
    ids = torch.tensor([words("<s> a dog runs </s> <pad>")["input_ids"]])
    assert CaptionTokenizer(words, "", None).decode(ids) == ["a dog runs"]


def test_another_number_of_prompts_is_refused(words: Any) -> None:
    with pytest.raises(ValueError, match=r"2 texts.*1 prompts"):
        CaptionTokenizer(words, "", None).encode(["a dog", "a circle"], ["a"])


@pytest.mark.parametrize("prompt", ["", "a photo of"])
def test_empty_captions_are_refused(words: Any, prompt: str) -> None:
    with pytest.raises(ValueError, match=r"caption '  '.*no word"):
        CaptionTokenizer(words, prompt, None).encode(["a dog", "  "], None)


def test_a_tokenizer_without_end_is_refused(letters: Any) -> None:
    letters.eos_token = None
    with pytest.raises(ValueError, match="eos_token"):
        CaptionTokenizer(letters, "", None)


def test_tokens_are_mapped_to_the_word_that_contains_them(words: Any, letters: Any) -> None:
    texts = ["a red circle", "a  circle ."]
    assert CaptionTokenizer(words, "", None).word_indices(texts) == [[0, 1, 2], [0, 1, 2]]
    assert CaptionTokenizer(letters, "", None).word_indices(["so it"]) == [[0, 0, 0, 1, 1]]  # the space ends word 0
    assert CaptionTokenizer(letters, "Say:", None).word_indices(["so"]) == [[0, 0, 0]]  # after a space


def test_a_vocabulary_that_lacks_the_words_is_warned_of_once(words: Any, caplog: pytest.LogCaptureFixture) -> None:
    CaptionTokenizer(words, "", None).encode(["a red circle above a quagga"] * 4, None)
    assert caplog.text == ""
    tokenizer = CaptionTokenizer(words, "", None)
    for _ in range(2):
        tokenizer.encode(["a surfer rides waves", "two green triangles"], None)
    assert "3 of 7 tokens of the first captions are <unk>" in caplog.text
    assert caplog.text.count("synth2 vocabulary CAPTIONS") == 1
