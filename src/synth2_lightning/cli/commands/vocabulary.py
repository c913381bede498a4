"""``synth2 vocabulary``."""

from pathlib import Path

from synth2_lightning.io.console import MessageConsole


def vocabulary(captions: str, *, out: Path, min_count: int = 5) -> None:
    """Build a word vocabulary from captions, for a randomly initialized language model.

    Args:
        captions: Folder of a caption set, table with a column `caption`, COCO captions JSON, or a text file with one
            caption per line.
        out: Folder of the tokenizer.
        min_count: Minimum count of a word; rarer words become <unk>.

    Example:
        synth2 vocabulary captions.json --out runs/vocabulary
    """
    from synth2_lightning.io.locations import resolve

    path = resolve(captions, "caption set")  # before the slow imports
    from synth2_lightning.decoders.vocabulary import build_vocabulary
    from synth2_lightning.sources.caption_files import read_caption_rows

    rows = read_caption_rows(path)
    num_words = build_vocabulary(rows["caption"].drop_null().to_pylist(), min_count, out)
    MessageConsole().print(f"A vocabulary of {num_words} words, special ones included, is in {out}", soft_wrap=True)
