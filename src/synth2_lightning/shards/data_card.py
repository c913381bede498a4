"""Data set cards: ``README.md`` with the tables that ``datasets.load_dataset`` reads, for caption sets and shards."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from synth2_lightning.io.atomic import write_atomically

CARD = "README.md"
_CAPTION_COLUMNS = {
    "caption": "the caption",
    "key": "its id",
    "source": "the list that it, or its class name, is from",
    "class_name": "what it was requested for",
    "prompt": "name and version of the prompt",
    "model": "the language model that wrote it",
    "seed": "seed of its sampling",
    "finish_reason": "why the answer ended",
    "num_prompt_tokens": "length of the prompt",
    "num_tokens": "length of the answer",
}


def write_data_card(
    folder: Path,
    summary: str,
    tables: Mapping[str, str],
    columns: Sequence[str],
    provenance: Mapping[str, Any],
    split: str = "train",
    tags: Sequence[str] = (),
) -> None:
    """Write the card of a folder.

    Args:
        folder: Folder of the tables.
        summary: First sentence.
        tables: Pattern of the files of each configuration, by its name; the first is the default one.
        columns: One line on each column.
        provenance: Origin of the records.
        split: Name of the split.
        tags: Additional tags.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_data_card(Path(folder), "Two captions.", {"default": "captions.parquet"}, ["caption: text"], {})
        ...     (Path(folder) / CARD).read_text().splitlines()[1:3]
        ['configs:', '- config_name: default']
    """
    from huggingface_hub import DatasetCardData

    configs = [
        {"config_name": name, "data_files": [{"split": split, "path": pattern}]} for name, pattern in tables.items()
    ]
    front = DatasetCardData(configs=configs, tags=["image-captioning", "synth2-lightning", *tags])
    text = "\n\n".join(
        (
            f"---\n{front.to_yaml()}\n---\n\n# {folder.absolute().name}",
            f"{summary} Made with synth2-lightning, an open implementation of Synth² "
            "([arXiv 2403.07750](https://arxiv.org/abs/2403.07750)).",
            "```python\nfrom datasets import load_dataset\n\n"
            f'rows = load_dataset("OWNER/NAME", split="{split}")  # or the path of this folder\n```',
            "## Columns\n\n" + "\n".join(f"* {column}" for column in columns),
            "## Provenance\n\n```json\n" + json.dumps(provenance, indent=2, ensure_ascii=False) + "\n```",
        )
    )
    write_atomically(folder / CARD, lambda path: path.write_text(text + "\n", "utf-8"))


def write_caption_card(folder: Path, tables: Mapping[str, str], manifest: Mapping[str, Any]) -> None:
    """Write the card of a caption set, which may be a part of a table of captions by people.

    Args:
        folder: Folder of the set, with its tables.
        tables: As for :func:`write_data_card`.
        manifest: Content of its manifest, which is written last.
    """
    names = pq.read_schema(folder / next(iter(tables.values()))).names
    columns = [f"`{name}`: {text}" for name, text in _CAPTION_COLUMNS.items() if name in names]
    if "rejected" in tables:
        columns.append("`filter`, `reason`, in the configuration `rejected` only: why a caption was not kept")
    author, tags = (" that a language model wrote", ["synthetic-data"]) if "model" in names else ("", [])
    write_data_card(folder, f"{manifest['num_kept']} captions{author}.", tables, columns, manifest, tags=tags)
