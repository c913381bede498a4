"""Second writers, copied parts and changed inputs are refused by a message for users."""

import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import torch
from drivers import read_refusal
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from synth2_lightning.callbacks.array_task import ArrayTaskCallback
from synth2_lightning.callbacks.caption_writer import CaptionWriterCallback
from synth2_lightning.callbacks.run_lock import RunLockCallback
from synth2_lightning.callbacks.shard_writer import ShardWriterCallback
from synth2_lightning.concepts.prompts import PromptTemplate
from synth2_lightning.concepts.sampling import UniformSampling
from synth2_lightning.concepts.table import TableConcepts
from synth2_lightning.datamodules.captions import CaptionDataModule
from synth2_lightning.datamodules.concepts import ConceptDataModule
from synth2_lightning.datamodules.real import RealDataModule
from synth2_lightning.datamodules.shards import ShardDataModule
from synth2_lightning.decoders.vocabulary import build_vocabulary
from synth2_lightning.export.folder import CONTENT
from synth2_lightning.filters.duplicates import NearDuplicates
from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.io.atomic import write_files
from synth2_lightning.io.locks import lock_file, lock_folder
from synth2_lightning.modules.caption_writing import CaptionWritingModule
from synth2_lightning.modules.scoring import ScoringModule
from synth2_lightning.modules.synthesis import SynthesisModule
from synth2_lightning.modules.tokenization import TokenizationModule
from synth2_lightning.reports.commands import report_on_sets, select_by_class
from synth2_lightning.reports.deduplication import deduplicate
from synth2_lightning.shards.caption_set import stream_answers
from synth2_lightning.shards.image_captions import ImageCaptionFile
from synth2_lightning.shards.manifest import Manifest
from synth2_lightning.shards.parts import checksum_footer, read_footer
from synth2_lightning.shards.reader import ShardReader
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.sources.caption_table import CaptionTable
from synth2_lightning.sources.folder import FolderSource
from synth2_lightning.sources.webdataset import TarSource
from synth2_lightning.testing import (
    TinyCaptionGenerator,
    TinyImageGenerator,
    TinyImageTokenizer,
    TinyPairScorer,
    TinyTextEncoder,
)
from synth2_lightning.types import SampleInfo, TokenizedImages, VQTokens

pytestmark = [
    pytest.mark.filterwarnings("ignore:Total length of `.*` across ranks is zero"),
    pytest.mark.filterwarnings("ignore:The 'predict_dataloader' does not have many workers"),
]
PART = "part-00000-00000.parquet"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("SYNTH2_CACHE", str(tmp_path / "cache"))


def while_locked(lock: Any, path: Path, write: Callable[[], object]) -> None:
    """Write while the path is locked; the lock of this process stands in for another process's."""
    with lock(path):
        write()


def caption(folder: Path, name: str, locked: str = "bad") -> None:
    (folder / "bad").touch()
    (folder / "link-to-bad").symlink_to(folder / "bad")
    while_locked(lock_file, folder / locked, lambda: ImageCaptionFile(folder / name, "jsonl", {}))


def predict(
    module: LightningModule, data: LightningDataModule, writer: Callback, task: int | None = None, limit: int = 100
) -> None:
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_predict_batches=limit,
        callbacks=[writer, *([] if task is None else [ArrayTaskCallback(task, 3)])],
    )
    trainer.predict(module, data)


def write_table(folder: Path, *rows: str) -> Path:
    table = folder / "captions.csv"
    table.write_text("\n".join(["key,caption,class", *(rows or [f"k{n},a fox number {n},fox" for n in range(9)])]))
    return table


def synthesize(folder: Path, limit: int = 100, task: int | None = None, number: int = 1) -> None:
    captions = CaptionTable(str(folder / "captions.csv"), key_column="key", class_column="class")
    data = CaptionDataModule(captions, batch_size=2, num_per_caption=number)
    predict(
        SynthesisModule(TinyImageGenerator()),
        data,
        ShardWriterCallback(str(folder / "bad"), records_per_part=2),
        task,
        limit,
    )


def synthesise_while(folder: Path, lock: Any, path: str, task: int | None = None) -> None:
    write_table(folder)
    (folder / "bad").mkdir()
    while_locked(lock, folder / path, lambda: synthesize(folder, task=task))


def write_captions(folder: Path, limit: int = 100, request: str = "{name}") -> None:
    prompt = PromptTemplate("plain", 1, request)
    data = ConceptDataModule(TableConcepts(str(folder / "names.txt")), prompt, 6, UniformSampling(), 2)
    writer = CaptionWriterCallback(str(folder / "bad"), records_per_part=2)
    predict(CaptionWritingModule(TinyCaptionGenerator()), data, writer, limit=limit)


def tokenize(
    source: ImageTextSource, folder: Path, limit: int = 100, tokenizer: TinyImageTokenizer | None = None
) -> None:
    data = RealDataModule(predict=source, val_batch_size=2, image_size=8, num_workers=0)
    writer = ShardWriterCallback(str(folder / "bad"), records_per_part=2)
    predict(TokenizationModule(tokenizer or TinyImageTokenizer()), data, writer, limit=limit)


def draw(folder: Path, number: int, color: str = "red", form: str = "bmp", size: int = 8) -> None:
    (folder / "photos").mkdir(exist_ok=True)
    Image.new("RGB", (size, size), color).save(folder / "photos" / f"{number}.{form}")
    (folder / "photos" / f"{number}.txt").write_text(f"photo {number}")


def change_photo(folder: Path, change: Callable[[], object]) -> None:
    for number in range(4):
        draw(folder, number)
    tokenize(FolderSource(str(folder / "photos")), folder, limit=1)
    change()
    tokenize(FolderSource(str(folder / "photos")), folder)


def write_tar(folder: Path, color: str) -> str:
    with tarfile.open(folder / "photos.tar", "w") as tar:
        for number in range(4):
            image = io.BytesIO()
            Image.new("RGB", (8, 8), color).save(image, "PNG")
            for name, content in ((f"{number}.png", image.getvalue()), (f"{number}.txt", b"a fox")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return str(folder / "photos.tar")


def change_tar(folder: Path) -> None:
    tokenize(TarSource(write_tar(folder, "red")), folder, limit=1)
    tokenize(TarSource(write_tar(folder, "blue")), folder)


class OtherEncoder(TinyImageTokenizer):
    """Tokenizer with the same codes, but other weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("more", torch.ones(1))


def change_encoder(folder: Path) -> None:
    for number in range(4):
        draw(folder, number)
    tokenize(FolderSource(str(folder / "photos")), folder, limit=1)
    other = OtherEncoder()
    other.__class__.__name__ = "TinyImageTokenizer"
    tokenize(FolderSource(str(folder / "photos")), folder, tokenizer=other)


def change_captions(folder: Path, *rows: str, number: int = 1) -> None:
    write_table(folder)
    synthesize(folder, limit=1, number=number)
    write_table(folder, *rows)
    synthesize(folder, number=number)


def change_names(folder: Path, names: str, request: str = "{name}") -> None:
    (folder / "names.txt").write_text("dog\ncat\nfox\n")
    write_captions(folder, limit=1)
    (folder / "names.txt").write_text(names)
    write_captions(folder, request=request)


def make_shards(folder: Path, keys: str = "abcd", first: int = 0, settings: dict[str, Any] | None = None) -> Path:
    writer = ShardWriter(folder, records_per_part=2)
    writer.start(settings or {})
    ids = torch.arange(first, first + 4 * len(keys)).view(len(keys), 4, 1)
    captions = tuple((f"a {key}",) for key in keys)
    tokens = VQTokens(ids, TinyImageTokenizer.codebook)
    samples = tuple(SampleInfo(key, "s") for key in keys)
    writer.append(TokenizedImages(samples, captions, tokens, codebook_size=16 + first))
    writer.close()
    return folder


def copy_part(folder: Path, name: str, **other: Any) -> None:
    shards = make_shards(folder / "bad")
    source = make_shards(folder / "other", **other) if other else shards
    shutil.copy(source / PART, shards / name)
    finish(shards, {})


def name_parts(shards: Path, **digests: str) -> None:
    """Write a manifest with the footers of the parts in the folder."""
    parts = sorted(shards.glob("*.parquet"))
    manifest = replace(
        Manifest.read(shards),
        parts={part.name: read_footer(part).num_rows for part in parts},
        footers={part.name: checksum_footer(part) for part in parts},
    )
    replace(manifest, digests=manifest.digests | digests).save(shards)


def read_swapped(folder: Path) -> None:
    """Read shards in which a part was replaced by one of the same schema with other rows."""
    shards, other = make_shards(folder / "bad"), make_shards(folder / "other", "wxyz")
    finish(shards, {})
    shutil.copy(other / PART, shards / PART)
    name_parts(shards)
    ShardReader(shards).load()


def read_repeated(folder: Path) -> None:
    """Read shards with a part that was copied afterwards, and that the manifest names."""
    shards = make_shards(folder / "bad")
    finish(shards, {})
    shutil.copy(shards / PART, shards / "part-00003-00000.parquet")
    name_parts(shards, **{"part-00003-00000.parquet": Manifest.read(shards).digests[PART]})
    ShardReader(shards).load()


def read_damaged_copy(folder: Path) -> None:
    shards = make_shards(folder / "bad")
    finish(shards, {})
    ShardReader(shards).load()
    (copy,) = (folder / "cache" / "synth2_shards").glob("*.arrow")
    copy.write_bytes(copy.read_bytes()[:-200])
    ShardReader(shards).load()


def copy_answers(folder: Path) -> None:
    (folder / "names.txt").write_text("dog\ncat\nfox\n")
    write_captions(folder)
    shutil.copy(folder / "bad" / PART, folder / "bad" / "part-00002-00000.parquet")
    pa.concat_tables(stream_answers(folder / "bad"))


def change_shards(folder: Path) -> None:
    def score(limit: int) -> None:
        data = ShardDataModule(str(folder / "shards"), batch_size=2)
        writer = ShardWriterCallback(str(folder / "bad"), records_per_part=2)
        predict(ScoringModule(TinyPairScorer()), data, writer, limit=limit)

    finish(make_shards(folder / "shards"), {})
    score(limit=1)
    shutil.rmtree(folder / "shards")
    finish(make_shards(folder / "shards", keys="acbd"), {})
    score(limit=9)


def run_twice(folder: Path, locked: str) -> None:
    trainer = Trainer(
        accelerator="cpu",
        logger=CSVLogger(folder / "bad", name="", version=0),
        enable_progress_bar=False,
        enable_model_summary=False,
        fast_dev_run=False,
        max_steps=1,
        callbacks=[RunLockCallback(), ModelCheckpoint(dirpath=folder / "bad" / "checkpoints")],
    )
    (folder / "bad" / locked).mkdir(parents=True)
    callback = next(each for each in trainer.callbacks if isinstance(each, RunLockCallback))  # type: ignore[attr-defined]

    def start() -> None:
        callback.setup(trainer, LightningModule(), "fit")
        callback.on_fit_start(trainer, LightningModule())

    try:
        while_locked(lock_folder, folder / "bad" / locked, start)
    finally:
        callback.teardown(trainer, LightningModule(), "fit")


def write_while_locked(folder: Path, write: Callable[[Path], object]) -> None:
    (folder / "set.csv").write_text("caption,class_name\na fox,fox\na dog,dog\n")
    while_locked(lock_folder, folder / "bad", lambda: write(folder / "bad"))


def write_nothing(folder: Path, replaced: frozenset[str] = frozenset()) -> None:
    with write_files(folder, replaced):
        pass


KINDS: dict[str, Callable[[Path], object]] = {
    "two writers: captions in one file": lambda folder: caption(folder, "bad"),
    "two writers: captions in one file by two names": lambda folder: caption(folder, "link-to-bad"),
    "two writers: captions, the first by a link": lambda folder: caption(folder, "bad", "link-to-bad"),
    "two writers: captions in a file that is not there yet": lambda folder: caption(folder, "bad-2", "bad-2"),
    "two writers: predictions": lambda folder: synthesise_while(folder, lock_folder, "bad"),
    "two writers: predictions, of the first only a later rank is left": lambda folder: synthesise_while(
        folder, lock_file, "bad/part-00005"
    ),
    "two writers: a task of an array twice": lambda folder: synthesise_while(folder, lock_file, "bad/part-00001", 1),
    "two writers: a run finishes the set of a running task": lambda folder: synthesise_while(
        folder, lock_file, "bad/part-00001"
    ),
    "two writers: a generator or a codebook": lambda folder: write_while_locked(folder, write_nothing),
    "two writers: an export": lambda folder: write_while_locked(folder, partial(write_nothing, replaced=CONTENT)),
    "two writers: a vocabulary": lambda folder: write_while_locked(
        folder, lambda place: build_vocabulary(["a fox", "a fox"], 1, place)
    ),
    "two writers: a report": lambda folder: write_while_locked(
        folder, lambda place: report_on_sets([str(folder / "set.csv")], place, TinyTextEncoder())
    ),
    "two writers: a selection": lambda folder: write_while_locked(
        folder, lambda place: select_by_class(str(folder / "set.csv"), place, 1)
    ),
    "two writers: a set without duplicates": lambda folder: write_while_locked(
        folder, lambda place: deduplicate(str(folder / "set.csv"), place, NearDuplicates())
    ),
    "two writers: runs that chose one number": lambda folder: run_twice(folder, "version_0"),
    "two writers: runs that resume one checkpoint": lambda folder: run_twice(folder, "checkpoints"),
    "parts: one copied under another number": lambda folder: copy_part(folder, "part-00000-00007.parquet"),
    "parts: one copied under another rank": lambda folder: copy_part(folder, "part-00003-00000.parquet"),
    "parts: one of other records under the same keys": lambda folder: copy_part(
        folder, "part-00003-00000.parquet", keys="dx", first=0
    ),
    "parts: one of other settings": lambda folder: copy_part(
        folder, "part-00003-00000.parquet", keys="wx", settings={"seed": 7}
    ),
    "parts: one of another codebook": lambda folder: copy_part(folder, "part-00003-00000.parquet", keys="wx", first=16),
    "parts: one of a caption set, copied": copy_answers,
    "parts: another one in place of a finished one": read_swapped,
    "parts: a copied one in a folder that was finished": read_repeated,
    "parts: a damaged copy in the cache": read_damaged_copy,
    "inputs: a caption that was changed": lambda folder: change_captions(folder, "k0,a cat,fox", "k1,a dog,fox"),
    "inputs: a caption that several images are made of": lambda folder: change_captions(
        folder, "k0,a cat,fox", "k1,a dog,fox", number=2
    ),
    "inputs: a class that was changed": lambda folder: change_captions(
        folder, *(f"k{n},a fox number {n},cat" for n in range(9))
    ),
    "inputs: a caption that was removed": lambda folder: change_captions(folder, "k8,a fox number 8,fox"),
    "inputs: captions in another order under numbers": lambda folder: change_captions(
        folder, *(f"k{n},a fox number {8 - n},fox" for n in range(9))
    ),
    "inputs: a photo of another size": lambda folder: change_photo(folder, lambda: draw(folder, 0, size=16)),
    "inputs: a photo of the same size": lambda folder: change_photo(folder, lambda: draw(folder, 0, "blue")),
    "inputs: a photo's captions": lambda folder: change_photo(
        folder, lambda: (folder / "photos" / "1.txt").write_text("something else")
    ),
    "inputs: a photo that was removed": lambda folder: change_photo(
        folder, lambda: (folder / "photos" / "1.bmp").unlink()
    ),
    "inputs: photos in a tar": change_tar,
    "inputs: shards that are scored": change_shards,
    "inputs: concepts": lambda folder: change_names(folder, "dog\ncat\nowl\n"),
    "inputs: a template under the same name": lambda folder: change_names(
        folder, "dog\ncat\nfox\n", "A photo of {name}"
    ),
    "inputs: the encoder of the same codebook": change_encoder,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_would_be_lost_or_mixed_is_refused_with_a_message(kind: str, tmp_path: Path) -> None:
    message = read_refusal(KINDS[kind], tmp_path)
    assert re.search(r"\bbad", message), message
    wanted = {
        "two writers": r"process \d+ .* since ",
        "parts": r"every record once|other settings|one format|damaged",
        "inputs": r"changed|no longer|fingerprint|weights",
    }
    assert re.search(wanted[kind.partition(":")[0]], message), message


def test_a_run_of_an_array_sums_up_only_when_no_task_is_at_work(tmp_path: Path) -> None:
    write_table(tmp_path)
    for task in range(3):
        synthesize(tmp_path, task=task)
    synthesize(tmp_path)
    assert sum(json.loads((tmp_path / "bad" / "manifest.json").read_text())["parts"].values()) == 9
    assert [path.name for path in (tmp_path / "bad").iterdir() if path.name.startswith(".")] == []


def test_inputs_may_grow_and_other_sources_may_be_beside_them(tmp_path: Path) -> None:
    write_table(tmp_path)
    synthesize(tmp_path, limit=1)
    write_table(tmp_path, *(f"k{n},a fox number {n},fox" for n in range(12)))
    synthesize(tmp_path)
    for number in range(2):
        draw(tmp_path, number)
    data = RealDataModule(predict=FolderSource(str(tmp_path / "photos")), image_size=8)
    data.setup("predict")
    assert data.fingerprint_inputs([("synthetic", "k1")]) == [None]
    assert sum(json.loads((tmp_path / "bad" / "manifest.json").read_text())["parts"].values()) == 12


def test_a_photo_that_two_ranks_took_for_a_damaged_one_is_kept_once(tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "shards", "abc")
    writer = ShardWriter(tmp_path / "other", rank=1)
    writer.start({})
    whole = ShardReader(shards)
    finish(shards, {})
    whole.load()
    repeated = whole.read([2])
    writer.append(repeated)
    writer.append(TokenizedImages((SampleInfo("z", "s"),), (("a z",),), repeated.tokens, codebook_size=16))
    writer.close()
    shutil.copy(tmp_path / "other" / "part-00001-00000.parquet", shards)
    assert finish(shards, {}).parts["part-00001-00000.parquet"] == 1
    reader = ShardReader(shards)
    reader.load()
    assert sorted(key for _, key in reader.read_keys()) == ["a", "b", "c", "z"]
