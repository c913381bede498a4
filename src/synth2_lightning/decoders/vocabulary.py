"""A word-level vocabulary built from captions, for randomly initialized language models."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from synth2_lightning.io.atomic import write_files

_SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def build_vocabulary(captions: Iterable[str], min_count: int, out: Path) -> int:
    """Count words and write a tokenizer of transformers.

    Words are lower-cased and split from punctuation. A token includes whether a space precedes it, so that decoded text
    has the original spacing. Words that occur fewer than ``min_count`` times become ``<unk>``.

    Args:
        captions: Texts to count in; training captions only.
        min_count: Minimum number of occurrences of a word.
        out: Folder to write to.

    Returns:
        Size of the vocabulary, including its four special tokens.

    Raises:
        OSError: If the folder cannot be written.
        ValueError: If ``min_count`` is below 1, or no word occurs so many times.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     build_vocabulary(["A red circle.", "A blue circle."], min_count=2, out=Path(folder))
        7
    """
    from transformers import PreTrainedTokenizerFast

    if min_count < 1:
        raise ValueError(f"min_count is {min_count}; expected 1 or more occurrences of a word.")
    tokenizer = _count(captions, min_count)
    size: int = tokenizer.get_vocab_size()
    if size <= len(_SPECIAL):
        raise ValueError(
            f"No word of the captions occurs min_count={min_count} times; expected at least one, because the "
            "vocabulary would be empty. Lower min_count, or give more captions."
        )
    with write_files(out) as draft:
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_SPECIAL).save_pretrained(draft)
    return size


def _count(captions: Iterable[str], min_count: int) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer: Any = Tokenizer(models.WordLevel(unk_token=_SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Replace(Regex(r" (?=[.,;:!?])"), ""),  # many caption sets contain "a dog runs ."
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation("isolated")]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.WordLevelTrainer(
        min_frequency=min_count, special_tokens=list(_SPECIAL.values()), vocab_size=2**31, show_progress=False
    )
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer
