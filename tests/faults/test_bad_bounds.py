"""Small input that would take unbounded time or memory is refused at once, by a message that names it.

``KINDS`` lists the input; each must raise an error with a message for users, not a traceback.
"""

import os
import re
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
import torch
from drivers import DEEP, image, read_refusal, write
from PIL import Image

import synth2_lightning
from synth2_lightning.cli import main
from synth2_lightning.concepts.suitability import SuitabilityList
from synth2_lightning.datamodules.photos import ImageReader
from synth2_lightning.decoders.language_model import PretrainedLanguageModel
from synth2_lightning.encoders.text import PretrainedTextEncoder
from synth2_lightning.export.runs import read_cards, read_run_file
from synth2_lightning.io.checkpoint_files import read_checkpoint
from synth2_lightning.io.json_text import read_description
from synth2_lightning.io.locations import resolve
from synth2_lightning.io.parquet import read_parquet
from synth2_lightning.io.safetensors import read_safetensors
from synth2_lightning.io.tables import read_lines, read_rows
from synth2_lightning.reports.caption_set import read_caption_set
from synth2_lightning.reports.scores import score_predictions
from synth2_lightning.shards.parts import checksum_footer
from synth2_lightning.sources.base import SkipCounter
from synth2_lightning.sources.coco import CocoSource
from synth2_lightning.sources.folder import FolderSource
from synth2_lightning.sources.images import decode_image
from synth2_lightning.sources.read_ahead import read_ahead
from synth2_lightning.sources.webdataset import TarSource

pytestmark = pytest.mark.usefixtures("own_cache")

PAIRS = "".join(f"a{number}: &a{number} {{p: *a{number - 1}, q: *a{number - 1}}}\n" for number in range(1, 26))
LAUGHS = "".join(f"b{number}: &b{number} [{', '.join([f'*b{number - 1}'] * 10)}]\n" for number in range(1, 10))
MERGES = "".join(f"c{number}: &c{number} {{<<: [*c{number - 1}, *c{number - 1}]}}\n" for number in range(1, 26))


def pipe(folder: Path, name: str = "bad") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / name)
    return folder / name


def endless(folder: Path, name: str = "bad") -> Path:
    (folder / name).symlink_to("/dev/zero")
    return folder / name


def listening(folder: Path, name: str = "bad") -> Path:
    with socket.socket(socket.AF_UNIX) as place:
        place.bind(str(folder / name))
    return folder / name


def run_file(folder: Path, content: str) -> object:
    return read_run_file(Path(write(folder, "bad/config.yaml", content)).parent)


def png(width: int, height: int, depth: int = 1, color: int = 0) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    packed = zlib.compress(bytes(1 + (width * depth * channels + 7) // 8) * min(height, 2**16), 1)
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def model(folder: Path, name: str, content: str = DEEP) -> str:
    write(folder, "bad/config.json", {"model_type": "gpt2"})
    return str(Path(write(folder, f"bad/{name}", content)).parent)


def score(folder: Path, predictions: Path) -> object:
    references = {"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "a fox"}]}
    return score_predictions(str(predictions), write(folder, "references.json", references))


KINDS: dict[str, Callable[[Path], object]] = {
    "YAML: pairs of pairs": lambda folder: run_file(folder, "a0: &a0 {x: 1}\n" + PAIRS + "data: *a25\n"),
    "YAML: tens of tens": lambda folder: run_file(folder, "b0: &b0 [lol]\n" + LAUGHS + "data: *b9\n"),
    "YAML: merged mappings": lambda folder: run_file(folder, "c0: &c0 {x: 1}\n" + MERGES + "data: *c25\n"),
    "YAML: a long text a hundred times": lambda folder: run_file(
        folder, f"a: &a {'x' * 10**6}\ndata: [{', '.join(['*a'] * 100)}]\n"
    ),
    "YAML: a recursive alias": lambda folder: run_file(folder, "data: &a {inner: [*a]}\n"),
    "YAML: lists nest 100,000 deep": lambda folder: run_file(folder, "data: " + DEEP),
    "YAML: mappings nest": lambda folder: run_file(folder, "data: " + "{a: " * 5000),
    "YAML: a number of a hundred thousand parts": lambda folder: run_file(folder, "data: 1" + ":1" * 100_000),
    "YAML: lines nest": lambda folder: run_file(folder, "data:\n" + "- " * 5000 + "a\n"),
    "YAML: five million letters": lambda folder: run_file(folder, "data: 1\n" + "# a\n" * 1_250_000),
    "JSON: a part's description nests": lambda folder: read_description(
        Path(write(folder, "bad", DEEP)), {}, "a test's"
    ),
    "JSON: a protocol card nests": lambda folder: read_cards(None, 0, [Path(write(folder, "bad.json", DEEP))]),
    "model: a configuration that nests": lambda folder: PretrainedLanguageModel(model(folder, "config.json")).config,
    "model: a tokenizer that nests": lambda folder: PretrainedLanguageModel(model(folder, "tokenizer.json")).tokenizer,
    "model: an inner configuration that nests": lambda folder: PretrainedTextEncoder(
        model(folder, "text/config.json", '{"a":' * 100_000)
    ).tokenizer,
    "model: a configuration that is a pipe": lambda folder: PretrainedLanguageModel(
        str(pipe(folder, "bad/config.json").parent)
    ).config,
    "image: 1 x 1,000,000": lambda folder: image(folder, png(1, 1_000_000)),
    "image: 1,000,000 x 1": lambda folder: image(folder, png(1_000_000, 1)),
    "image: 2 x 60,000 of 16 bits": lambda folder: image(folder, png(2, 60_000, 16)),
    "image: 200 million points of one bit": lambda folder: image(folder, png(20_000, 10_000), 178_956_970),
    "image: a pipe": lambda folder: decode_image(pipe(folder), "bad"),
    "image: a device": lambda folder: decode_image(endless(folder), "bad"),
    "image: a socket": lambda folder: decode_image(listening(folder), "bad"),
    "location: a pipe": lambda folder: resolve(pipe(folder), "captions"),
    "location: a device": lambda folder: resolve(endless(folder), "captions"),
    "location: a socket": lambda folder: resolve(listening(folder), "captions"),
    "COCO: a pipe": lambda folder: list(CocoSource(str(pipe(folder)), str(folder)).read_index(SkipCounter())),
    "predictions: a pipe": lambda folder: score(folder, pipe(folder, "bad.json")),
    "predictions: a folder": lambda folder: score(folder, Path(model(folder, "inner.json"))),
    "table: a device": lambda folder: list(read_rows(endless(folder, "bad.csv"), ["caption"])),
    "table: a folder": lambda folder: list(read_rows(Path(model(folder, "a")).rename(folder / "bad.csv"), ["caption"])),
    "Parquet: a pipe": lambda folder: read_parquet(pipe(folder, "bad.parquet")),
    "Parquet: a folder": lambda folder: read_parquet(Path(model(folder, "a"))),
    "lines: a pipe": lambda folder: read_lines(pipe(folder)),
    "list of concepts: a pipe": lambda folder: SuitabilityList(str(pipe(folder, "bad.txt"))),
    "caption set: a pipe": lambda folder: read_caption_set(str(pipe(folder, "bad.txt"))),
    "captions beside an image: a pipe": lambda folder: (
        write(folder, "bad.png", png(8, 8)),
        pipe(folder, "bad.txt"),
        list(FolderSource(str(folder)).read_index(SkipCounter())),
    ),
    "tar: a pipe": lambda folder: TarSource(str(pipe(folder, "bad.tar"))).load(),
    "shards: a part that is a pipe": lambda folder: checksum_footer(pipe(folder, "bad.parquet")),
    "checkpoint: a pipe": lambda folder: synth2_lightning.load(pipe(folder, "bad.ckpt")),
    "checkpoint: a device": lambda folder: read_checkpoint(endless(folder, "bad.ckpt")),
    "safetensors: a pipe": lambda folder: read_safetensors(pipe(folder, "bad.safetensors")),
    "export: a config that is a pipe": lambda folder: synth2_lightning.load(pipe(folder, "bad/config.json").parent),
}  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_bounds_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    before = monotonic()
    message = read_refusal(KINDS[kind], tmp_path)
    assert re.search(r"\bbad", message), message
    assert monotonic() - before < 60


@pytest.mark.parametrize("words", [["--config", "bad.yaml"], ["--config", "outer.yaml"], ["--config=outer.yaml"]])
def test_run_files_that_multiply_are_refused_wherever_they_are_named(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "bad.yaml", "b0: &b0 [lol]\n" + LAUGHS + "data: *b9\n")
    write(tmp_path, "outer.yaml", "data: bad.yaml\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["fit", *words])
    assert stop.value.code in (1, 2)
    error = " ".join(capsys.readouterr().err.split())
    assert "bad.yaml" in error
    assert re.search(r"aliases.*\b10000\b", error)


@pytest.mark.parametrize(
    "words", [["--config", "bad"], ["--config=bad"], ["--config", "mixed.yaml", "--ckpt_path=bad"]]
)
def test_run_files_and_checkpoints_that_are_pipes_are_refused(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["fit", *words])
    assert stop.value.code == 1
    assert "bad is a pipe" in capsys.readouterr().err


class OutOfMemorySource(FolderSource):
    """Source with one image that exceeds memory."""

    def read_image(self, location: str) -> Image.Image:
        if "hungry" in location:
            raise MemoryError
        return super().read_image(location)


def test_a_worker_survives_an_image_that_exceeds_memory(tmp_path: Path) -> None:
    for name in ("calm", "hungry"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{name}.png")
        write(tmp_path, f"{name}.txt", "a red square")
    source = OutOfMemorySource(str(tmp_path))
    source.load()
    pixels, taken, bad = ImageReader(source, 8, max_bad_images=1).read([0, 1])
    assert taken == [0, 0]
    assert torch.equal(pixels.values[0], pixels.values[1])
    assert [name for name in bad if "folder/hungry" in name and "MemoryError" in name]


def test_threads_survive_what_memory_does_not_hold() -> None:
    def read(number: int) -> int:
        if number == 2:
            raise MemoryError
        return number

    results = dict(read_ahead([1, 2, 3], read))
    assert isinstance(results[2], OSError)
    assert re.search(r"\b2\b.*memory", str(results[2]))
    assert (results[1], results[3]) == (1, 3)
