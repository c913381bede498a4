from pathlib import Path

import pytest
from transformers import AutoTokenizer

from synth2_lightning.decoders.vocabulary import build_vocabulary

CAPTIONS = ["A man's red T-shirt,  on the beach!", "a dog runs .", 'the dog said "woof"']


def test_decoded_text_reads_as_it_was_written(tmp_path: Path) -> None:
    build_vocabulary(CAPTIONS, 1, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    decoded = [tokenizer.decode(tokenizer(text)["input_ids"]) for text in CAPTIONS]
    assert decoded == ["a man's red t-shirt, on the beach!", "a dog runs.", 'the dog said "woof"']


def test_rare_words_become_unknown(tmp_path: Path) -> None:
    assert build_vocabulary(CAPTIONS, 2, tmp_path) == 4 + len(["▁a", "▁the", "▁dog", '"'])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.convert_ids_to_tokens(tokenizer("the DOG laughs")["input_ids"]) == ["▁the", "▁dog", "<unk>"]


def test_special_tokens_are_known(tmp_path: Path) -> None:
    build_vocabulary(CAPTIONS, 1, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    special = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert special == (0, 1, 2, 3)
    assert tokenizer.decode([1, 0, 2], skip_special_tokens=True) == ""


def test_an_empty_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"min_count is -1"):
        build_vocabulary(["a dog"], -1, tmp_path)
    with pytest.raises(ValueError, match="min_count=9"):
        build_vocabulary(CAPTIONS, 9, tmp_path)
