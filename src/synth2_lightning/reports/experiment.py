"""Run files of an experiment with synthetic pairs, for photos of any known layout."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import yaml

from synth2_lightning.decoders.vocabulary import build_vocabulary
from synth2_lightning.io.atomic import write_files
from synth2_lightning.sources.layouts import SourceSpec
from synth2_lightning.sources.photo_captions import PhotoCaptions

CAPTIONS = "captions.csv"
"""Captions without photos, which the user writes."""
_ORIGINAL = "flickr8k"
_MIN_COUNT = 2
"""Occurrences of a word in the vocabulary: small sets of captions have few."""
_FILES = {
    "": ("trainer", "codebook", "tokenize", "generator_trainer", "generator", "synthesize", "real", "mixed",
         "prompt", "prompt_words", "filters", "captions", "synthesize_captions", "writer", "filters_writer",
         "captions_writer"),
    "model": ("tokenizer", "text_encoder", "captioner"),
    "data": ("photos", "real", "mixed", "writer_captions"),
}  # fmt: skip
_CAPTIONS_OF_OTHERS = """\
      class_path: synth2_lightning.sources.photo_captions.PhotoCaptions
      init_args: {photos: data/train.yaml, skip: 1000, name: flickr8k-synthetic}
"""
_CAPTIONS_OF_A_TABLE = """\
      class_path: synth2_lightning.sources.caption_table.CaptionTable
      init_args: {table: %s, name: flickr8k-synthetic}
"""


def write_experiment(original: Path, out: Path, photos: Mapping[str, SourceSpec]) -> None:
    """Write the run files of ``experiments/flickr8k`` for other photos, all of them real, and a word vocabulary.

    Paths in the run files, such as ``runs/NAME/codebook``, have the name of the folder. The captions without photos are
    those of ``captions.csv`` in the folder.

    Args:
        original: Folder of the experiment.
        out: Folder to write to.
        photos: Sources ``train`` and ``val``.

    Raises:
        ValueError: If paths and names of run files cannot have the name of the folder.
    """
    name = out.resolve().name
    if not re.fullmatch(r"[A-Za-z][\w.-]*", name):
        raise ValueError(
            f"The folder {str(out)!r} is called {name!r}; expected a name of letters, digits, '-', '_' and '.' that "
            "starts with a letter, because the run files have it in the names of their outputs. Choose another --out."
        )
    replaced = {
        _CAPTIONS_OF_OTHERS: _CAPTIONS_OF_A_TABLE % json.dumps(str(out / CAPTIONS)),
        "limit: 5000": "limit: null",
        f"experiments/{_ORIGINAL}": shlex.quote(str(out)),  # in commands of comments
        f"runs/{_ORIGINAL}/vocabulary": json.dumps(str(out / "vocabulary")),
        _ORIGINAL: name,
    }
    for folder, names in _FILES.items():
        with write_files(out / folder) as draft:
            for file in names:
                text = (original / folder / f"{file}.yaml").read_text("utf-8")
                for old, new in replaced.items():
                    text = text.replace(old, new)
                (draft / f"{file}.yaml").write_text(text, "utf-8")
    with write_files(out / "data") as draft:
        for file, split in {"train": "train", "real_photos": "train", "val": "val"}.items():
            settings = yaml.safe_dump(photos[split].to_settings(), sort_keys=False, allow_unicode=True)
            (draft / f"{file}.yaml").write_text(settings, "utf-8")
    captions = PhotoCaptions(photos["train"].build())
    captions.load()
    texts = (captions.record(index).caption for index in range(len(captions)))
    build_vocabulary(texts, _MIN_COUNT, out / "vocabulary")
