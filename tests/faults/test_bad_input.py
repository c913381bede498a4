"""Bad input of every kind is refused by a message that names the file, or skipped, counted and named.

``KINDS`` lists the refused input; each must raise an error with a message for users, not a traceback.
"""

import gzip
import json
import os
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from zlib import crc32

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from drivers import DEEP, image, load, png, read_refusal, table, write
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

import synth2_lightning
from synth2_lightning.callbacks.checkpoint_io import CheckedCheckpointIO, find_checkpoint_to_resume
from synth2_lightning.cli import main
from synth2_lightning.cli.errors import message_for_user
from synth2_lightning.concepts.suitability import SuitabilityList
from synth2_lightning.export.sharded import check_sharded
from synth2_lightning.generators.completion_cache import CompletionCache
from synth2_lightning.io import parquet
from synth2_lightning.io.checkpoint_files import read_checkpoint
from synth2_lightning.io.json_text import parse_json
from synth2_lightning.io.parquet import read_parquet, write_parquet
from synth2_lightning.io.safetensors import read_safetensors
from synth2_lightning.io.tables import read_rows
from synth2_lightning.metrics.document_frequencies import load_document_frequencies
from synth2_lightning.reports.scores import score_predictions
from synth2_lightning.shards import reader
from synth2_lightning.shards.image_captions import ImageCaptionFile
from synth2_lightning.shards.manifest import Manifest
from synth2_lightning.shards.parts import read_part
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.sources.coco import CocoSource
from synth2_lightning.sources.folder import FolderSource
from synth2_lightning.sources.hub import HubSource
from synth2_lightning.sources.images import decode_image
from synth2_lightning.sources.karpathy import KarpathySource
from synth2_lightning.sources.table import TableSource
from synth2_lightning.sources.vqa import VQASource
from synth2_lightning.sources.webdataset import TarSource
from synth2_lightning.types import SampleInfo, TokenizedImages, VQTokens

pytestmark = pytest.mark.usefixtures("own_cache")

CAPTIONS = ["a red circle", "two blue squares"]
COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
    "annotations": [{"image_id": 1, "caption": CAPTIONS[0]}, {"image_id": 2, "caption": CAPTIONS[1]}],
}


class Code:
    """Object whose pickle creates a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def coco(folder: Path, content: Any) -> object:
    return load(CocoSource(write(folder, "bad", content), str(folder)))


def changed(**change: Any) -> dict[str, Any]:
    """Return COCO's file with other fields in the second image and annotation."""
    return {
        name: [first, {key: change.get(key, value) for key, value in second.items()}]
        for name, (first, second) in COCO.items()
    }


def karpathy(folder: Path, sentences: Any) -> object:
    records = [{"filename": "1.png", "split": "val", "sentences": sentences}]
    return load(KarpathySource(write(folder, "bad", {"images": records}), str(folder), ["val"]))


def vqa(folder: Path, answers: Any, image_id: Any = 42) -> object:
    asked = {"questions": [{"question_id": 1, "image_id": image_id, "question": "what?"}]}
    answered = {"annotations": [{"question_id": 1, "answers": answers}]}
    return load(VQASource(write(folder, "bad", asked), write(folder, "bad-answers", answered), str(folder)))


def parquet_table(folder: Path, content: pa.Table, change: Callable[[bytes], bytes] = bytes) -> object:
    write_parquet(content, folder / "bad.parquet")
    return table(folder, "bad.parquet", change((folder / "bad.parquet").read_bytes()))


def score(folder: Path, predictions: Any, references: Any = COCO, frequencies: str | None = None) -> object:
    given = (write(folder, "bad-predictions.json", predictions), write(folder, "bad-references.json", references))
    return score_predictions(*given, document_frequencies=frequencies)


def make_tar(members: dict[str, bytes]) -> bytes:
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return file.getvalue()


TAR = make_tar({"0.png": png(), "0.txt": b"zero", "1.png": png(), "1.txt": b"one"})  # a block of header, one of content


def tar(folder: Path, content: bytes) -> object:
    return load(TarSource(write(folder, "bad.tar", content)))


def negative_size(content: bytes) -> bytes:
    """Return a tar with a member of negative size, which makes tarfile loop forever."""
    head = bytearray(content[1024:1536])
    head[124:136] = (2**96 - 1024).to_bytes(12, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return content[:1024] + bytes(head) + content[1536:]


def captions_beside(folder: Path, content: bytes) -> object:
    write(folder, "bad.png", png())
    write(folder, "bad.txt", content)
    return load(FolderSource(str(folder)))


def bomb() -> bytes:
    """Return an image whose header claims 20,000 by 20,000 pixels."""
    content = bytearray(png())
    content[16:24] = (20_000).to_bytes(4, "big") * 2
    content[29:33] = crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def checkpoint(folder: Path, content: Any = None, change: Callable[[bytes], bytes] = bytes) -> str:
    whole = {"global_step": 3, "state_dict": {"w": torch.arange(500.0)}, "hyper_parameters": {}}
    torch.save(whole if content is None else content, folder / "bad.ckpt")
    return write(folder, "bad.ckpt", change((folder / "bad.ckpt").read_bytes()))


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def packed(content: bytes) -> bytes:
    """Return the archive with compressed records, which could expand to fill the memory."""
    file = BytesIO()
    with zipfile.ZipFile(BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record))
    return file.getvalue()


def hostile_instantiator(folder: Path) -> object:
    hyper = {"_instantiator": "os.mkdir", "image_encoder": {}}
    content = {"state_dict": {}, "hyper_parameters": hyper, "pytorch-lightning_version": "2.6.6"}
    return synth2_lightning.load(checkpoint(folder, content))


def sharded(folder: Path, index: bytes = b"", value: Any = 0.25) -> None:
    from torch.distributed.checkpoint.state_dict_saver import save

    place = folder / "bad.ckpt"
    save({"state_dict": {"w": torch.ones(2)}, "optimizer_0": {"lr": value}}, checkpoint_id=place, no_dist=True)
    torch.save({"global_step": 1}, place / "meta.pt")
    if index:
        (place / ".metadata").write_bytes(index)
    check_sharded(place)


def make_shards(folder: Path) -> Path:
    place = folder / "shards"
    ids = torch.arange(24).view(6, 4, 1)
    captions = tuple((f"caption {number}",) for number in range(6))
    writer = ShardWriter(place)
    writer.start({"seed": 0})
    samples = tuple(SampleInfo(key, "bad") for key in "012345")
    writer.append(TokenizedImages(samples, captions, VQTokens(ids, "tiny:1"), 512))
    writer.close()
    finish(place, {})
    return place


def read_shards(place: Path) -> pa.Table:
    manifest = Manifest.read(place)
    reader._check_parts(place, manifest)  # as load() does before datasets maps the parts
    return pa.concat_tables([read_part(place / name) for name in manifest.parts])


def shards(folder: Path, name: str, change: Callable[[bytes], bytes]) -> object:
    place = make_shards(folder)
    write(place, name, change((place / name).read_bytes()))
    return read_shards(place)


def manifest(folder: Path, **change: Any) -> object:
    return shards(folder, "manifest.json", lambda content: json.dumps(json.loads(content) | change).encode())


def caption_file(folder: Path, rows: str, made_by: str) -> object:
    write(folder, "bad.jsonl.made-by.json", made_by)
    return ImageCaptionFile(Path(write(folder, "bad.jsonl", rows)), "jsonl", {"beams": 3})


def many_rows(content: bytes) -> bytes:
    """Return a Parquet file whose footer claims more rows than its pages have: 3000 is 0xf02e, 8000 is 0x807d."""
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    return content[:start] + content[start:].replace(b"\xf0\x2e", b"\x80\x7d")


PART = "part-00000-00000.parquet"
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
ROW = '{"image": "1.png", "caption": "a red circle"}\n'
NOT_UTF8 = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))

KINDS: dict[str, Callable[[Path], object]] = {
    "JSON: cut": lambda folder: coco(folder, json.dumps(COCO)[:-30]),
    "JSON: empty": lambda folder: coco(folder, ""),
    "JSON: nests 100,000 deep": lambda folder: coco(folder, DEEP),
    "JSON: in another encoding": lambda folder: coco(folder, b'{"images": "r\xe9d"}'),
    "JSON: a number of 100,000 digits": lambda folder: coco(folder, "9" * 100_000),
    "COCO: a list": lambda folder: coco(folder, [COCO]),
    "COCO: annotations by key": lambda folder: coco(folder, {**COCO, "annotations": {"1": CAPTIONS[0]}}),
    "COCO: a caption that is an object": lambda folder: coco(folder, changed(caption={"text": "a fox"})),
    "COCO: a caption that is a number": lambda folder: coco(folder, changed(caption=7)),
    "COCO: an id that is a list": lambda folder: coco(folder, changed(id=[2])),
    "COCO: a file name that is a number": lambda folder: coco(folder, changed(file_name=2)),
    "Karpathy: sentences that are a number": lambda folder: karpathy(folder, 5),
    "Karpathy: a sentence that is a list": lambda folder: karpathy(folder, [{"raw": ["a fox"]}]),
    "VQA: answers that are a text": lambda folder: vqa(folder, "yes"),
    "VQA: an image's number that is a text": lambda folder: vqa(folder, [{"answer": "yes"}], "forty-two"),
    "predictions: nest": lambda folder: score(folder, DEEP),
    "predictions: a caption that is a list": lambda folder: score(folder, [{"image_id": 1, "caption": ["a"]}]),
    "references: no object": lambda folder: score(folder, [], "null"),
    "document frequencies: damaged": lambda folder: load_document_frequencies(Path(write(folder, "bad", b"PAR1PAR1"))),
    "CSV: a comma outside of quotes": lambda folder: table(folder, "bad.csv", "caption,class\na dog, running,dog\n"),
    "CSV: a quote that is not closed": lambda folder: table(folder, "bad.csv", 'caption\n"a dog\na cat\na cow\n'),
    "CSV: a field of a megabyte": lambda folder: table(folder, "bad.csv", "caption\n" + "a" * 10**6 + "\n"),
    "CSV: in another encoding": lambda folder: table(folder, "bad.csv", "caption\nun caf\xe9\n".encode("latin1")),
    "CSV: no such column": lambda folder: table(folder, "bad.csv", "text\na dog\n"),
    "JSONL: nests": lambda folder: table(folder, "bad.jsonl", '{"caption": "a"}\n' + DEEP),
    "JSONL: a line that is no object": lambda folder: table(folder, "bad.jsonl", '{"caption": "a"}\n3\n'),
    "JSONL: a caption that is an object": lambda folder: table(folder, "bad.jsonl", '{"caption": {"text": "a"}}\n'),
    "JSONL: a line without end": lambda folder: table(folder, "bad.jsonl", '{"caption": "' + "a" * 2**24),
    "images' table: a caption that is a list": lambda folder: load(
        TableSource(write(folder, "bad.jsonl", {"file_name": "1.png", "caption": ["a"]}), str(folder))
    ),
    "text: captions in another encoding": lambda folder: captions_beside(folder, b"un caf\xe9"),
    "list of concepts: binary": lambda folder: SuitabilityList(write(folder, "bad.txt", b"\x80\x81")),
    "Parquet: text": lambda folder: table(folder, "bad.parquet", "caption\na dog\n"),
    "Parquet: cut": lambda folder: parquet_table(folder, pa.table({"caption": CAPTIONS}), half),
    "Parquet: a page with a flipped bit": lambda folder: parquet_table(
        folder, pa.table({"caption": CAPTIONS}), lambda content: content.replace(b"blue", b"glue")
    ),
    "Parquet: a footer without end": lambda folder: parquet_table(
        folder, pa.table({"caption": CAPTIONS}), lambda content: content[:-8] + b"\xff\xff\xff\x7fPAR1"
    ),
    "Parquet: more rows than it holds": lambda folder: parquet_table(
        folder, pa.table({"caption": [f"{number}" for number in range(3000)]}), many_rows
    ),
    "Parquet: texts that are none": lambda folder: parquet_table(folder, pa.table({"caption": NOT_UTF8})),
    "Parquet: lists for captions": lambda folder: parquet_table(folder, pa.table({"caption": [["a"], ["b"]]})),
    "Parquet of a Hub data set: cut": lambda folder: load(
        HubSource(write(folder, "bad.parquet", b"PAR1" * 9), "train")
    ),
    "tar: compressed": lambda folder: tar(folder, gzip.compress(TAR)),
    "tar: a damaged head between good ones": lambda folder: tar(folder, TAR[:1030] + b"x" + TAR[1031:]),
    "tar: ends between two members": lambda folder: tar(folder, TAR[:2048]),
    "tar: ends inside of a member": lambda folder: tar(folder, TAR[:2600]),
    "tar: two in one": lambda folder: tar(folder, TAR + TAR),
    "tar: a size below zero": lambda folder: tar(folder, negative_size(TAR)),
    "tar: a caption that nests": lambda folder: tar(folder, make_tar({"0.png": png(), "0.json": DEEP.encode()})),
    "tar: a caption that is an object": lambda folder: tar(folder, make_tar({"bad.json": b'{"caption": {"a": 1}}'})),
    "image: empty": lambda folder: image(folder, b""),
    "image: text": lambda folder: image(folder, b"a red circle"),
    "image: cut": lambda folder: image(folder, half(png())),
    "image: 400 million pixels, by its head": lambda folder: image(folder, bomb()),
    "image: more pixels than allowed": lambda folder: image(folder, png(), max_pixels=5),
    "image: PostScript, a program": lambda folder: image(folder, POSTSCRIPT),
    "checkpoint: empty": lambda folder: synth2_lightning.load(checkpoint(folder, change=lambda _: b"")),
    "checkpoint: cut": lambda folder: synth2_lightning.load(checkpoint(folder, change=half)),
    "checkpoint: a weight with a flipped bit": lambda folder: synth2_lightning.load(checkpoint(folder, change=flip)),
    "checkpoint: packed records": lambda folder: synth2_lightning.load(checkpoint(folder, change=packed)),
    "checkpoint: a list": lambda folder: read_checkpoint(Path(checkpoint(folder, [1, 2]))),
    "checkpoint: code": lambda folder: synth2_lightning.load(checkpoint(folder, {"state_dict": Code(folder / "ran")})),
    "checkpoint: code, resumed from": lambda folder: CheckedCheckpointIO().load_checkpoint(
        checkpoint(folder, {"state_dict": Code(folder / "ran")})
    ),
    "checkpoint: code, as the last of a run": lambda folder: find_checkpoint_to_resume(
        [Path(checkpoint(folder, {"global_step": Code(folder / "ran")})).parent], lambda content: []
    ),
    "checkpoint: a bare pickle": lambda folder: synth2_lightning.load(
        write(folder, "bad.ckpt", pickle.dumps(Code(folder / "ran")))
    ),
    "checkpoint: parts made by another function": hostile_instantiator,
    "sharded checkpoint: an index of code": lambda folder: sharded(folder, pickle.dumps(Code(folder / "ran"))),
    "sharded checkpoint: a value of code": lambda folder: sharded(folder, value=Code(folder / "ran")),
    "safetensors: cut": lambda folder: read_safetensors(Path(write(folder, "bad.safetensors", b"\xff" * 20))),
    "manifest: cut": lambda folder: shards(folder, "manifest.json", half),
    "manifest: nests": lambda folder: shards(folder, "manifest.json", lambda _: DEEP.encode()),
    "manifest: a list": lambda folder: shards(folder, "manifest.json", lambda _: b"[1]"),
    "manifest: another size of the codebook": lambda folder: manifest(folder, codebook_size=8192),
    "manifest: parts elsewhere": lambda folder: manifest(folder, parts={"../bad.parquet": 6}, checksum=0),
    "shards: a page with a flipped bit": lambda folder: shards(
        folder, PART, lambda content: flip(content[:100]) + content[100:]
    ),
    "shards: a footer with a flipped bit": lambda folder: shards(
        folder, PART, lambda content: content.replace(b"class_name", b"class_nama")
    ),
    "caption file: invalid settings": lambda folder: caption_file(folder, ROW, "{"),
    "caption file: of something else": lambda folder: caption_file(
        folder, ROW + "7\n", '{"format": "jsonl", "beams": 3}'
    ),
    "cache of answers: no database": lambda folder: CompletionCache(
        Path(write(folder, "bad/completions.sqlite3", b"answers" * 900)).parent
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable", "ignore:Image size")
@pytest.mark.parametrize("kind", KINDS)
def test_refused_input_is_named_in_a_message(kind: str, tmp_path: Path) -> None:
    message = read_refusal(KINDS[kind], tmp_path)
    assert re.search(r"\bbad|shards|forty-two", message), message
    assert not (tmp_path / "ran").exists(), "code was run"


def test_parquet_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(pa.table({"caption": ["a" * 2**20 + str(number) for number in range(8)]}), tmp_path / "bad.parquet")
    assert (tmp_path / "bad.parquet").stat().st_size < 2**14
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 2**20)
    with pytest.raises(ValueError, match=r"bad\.parquet.*\d+ bytes.*\b1048576\b"):
        next(read_rows(tmp_path / "bad.parquet", ["caption"]))


CONFIGS = {
    "nests": "data: " + "[" * 5000,
    "no YAML": "data: {",
    "binary": "\0\x01",
    "a tag of Python": "data: !!python/object/apply:os.mkdir [ran]",
    "a class that is not there": "model: {class_path: synth2_lightning.Nothing}",
    "a list": "- 1",
    "an unknown key": "modle: 3",
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_run_file_is_refused_with_a_message(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", write(tmp_path, "bad.yaml", CONFIGS[kind])])
    assert stop.value.code in (1, 2)
    assert "error:" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_what_is_left_out_is_named_and_the_others_are_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    members = {"good.png": png(), "good.txt": b"a red circle", "../out.png": png(), "/root.txt": b"no", "x.txt": b"no"}
    place = write(tmp_path, "bad.tar", make_tar({**members, "long.png": png(), "long.txt": b"a" * 2**21}))
    source = TarSource(place)
    assert load(source) == ["a red circle"]
    assert source.image(0).getpixel((0, 0)) == (255, 0, 0)
    assert "2 members" in caplog.text
    assert re.search(r"\b1 captions?\b.*\b1048576 bytes", caplog.text)
    assert "1 captions without" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar"]


def test_a_damaged_checkpoint_does_not_hide_the_good_one(tmp_path: Path) -> None:
    CheckedCheckpointIO().save_checkpoint({"global_step": 2}, tmp_path / "good.ckpt")
    checkpoint(tmp_path, {"global_step": Code(tmp_path / "ran")})
    with pytest.warns(UserWarning, match=r"bad\.ckpt.*\bcode\b.*good\.ckpt"):
        assert find_checkpoint_to_resume([tmp_path], lambda content: []) == (tmp_path / "good.ckpt", [])
    assert not (tmp_path / "ran").exists()


# Random changes of bytes: equal data are read, or an error with a message is raised.

change = st.tuples(st.sampled_from(["flip", "cut", "insert"]), st.integers(0, 2**20), st.integers(1, 255))
fuzz = settings(
    max_examples=int(os.environ.get("SYNTH2_FUZZ_EXAMPLES", "80")),
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def spoil(content: bytes, how: tuple[str, int, int], start: int = 0, end: int | None = None) -> bytes:
    kind, position, byte = how
    position = start + position % ((len(content) if end is None else end) - start)
    if kind == "flip":
        return content[:position] + bytes([content[position] ^ byte]) + content[position + 1 :]
    return content[:position] if kind == "cut" else content[:position] + bytes([byte]) + content[position:]


def refused_or_equal(read: Callable[[], Any], whole: Any) -> None:
    try:
        found = read()
    except Exception as error:
        if message_for_user(error):
            return
        raise
    assert found.equals(whole) if isinstance(whole, pa.Table) else found == whole


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("fuzz"))


@fuzz
@given(how=change)
@pytest.mark.parametrize("name", [PART, "manifest.json"])
def test_shards_are_what_they_were_or_refused(name: str, how: tuple[str, int, int], finished: Path) -> None:
    whole, content = read_shards(finished), (finished / name).read_bytes()
    try:
        write(finished, name, spoil(content, how))
        refused_or_equal(lambda: read_shards(finished), whole)
    finally:
        write(finished, name, content)


@fuzz
@given(how=change)
def test_tables_of_parquet_are_what_they_were_or_refused(how: tuple[str, int, int], finished: Path) -> None:
    rows = pa.table({"caption": CAPTIONS * 500})
    write_parquet(rows, finished.parent / "bad.parquet")
    content = (finished.parent / "bad.parquet").read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")  # no checksum protects it in a single file
    path = Path(write(finished.parent, "bad.parquet", spoil(content, how, end=footer)))
    refused_or_equal(lambda: read_parquet(path), rows)


@fuzz
@given(how=change, member=st.integers(0, 3))
def test_a_tar_with_a_damaged_header_loses_no_sample_without_a_warning(
    how: tuple[str, int, int], member: int, finished: Path
) -> None:
    spoiled = spoil(TAR, ("flip" if how[0] == "insert" else how[0], *how[1:]), 1024 * member, 1024 * member + 512)
    refused_or_equal(lambda: tar(finished.parent, spoiled), ["zero", "one"])


@fuzz
@given(how=change)
def test_a_checkpoint_is_what_it_was_or_refused(how: tuple[str, int, int], finished: Path) -> None:
    path = checkpoint(finished.parent, {"global_step": 3, "weights": torch.arange(9)}, lambda whole: spoil(whole, how))

    def read() -> tuple[Any, ...]:
        content = read_checkpoint(Path(path))
        return content["global_step"], content["weights"].tolist()

    refused_or_equal(read, (3, list(range(9))))


@fuzz
@given(how=change, format=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]))
def test_a_damaged_image_is_read_or_is_an_error_with_its_name(how: tuple[str, int, int], format: str) -> None:
    file = BytesIO()
    Image.linear_gradient("L").resize((16, 16)).convert("RGB").save(file, format)
    try:
        found = decode_image(BytesIO(spoil(file.getvalue(), how)), "bad.png", 10**6)
    except OSError as error:
        if "bad.png" in str(error):
            return
        raise
    assert found.mode == "RGB"


@fuzz
@given(how=change)
def test_a_damaged_index_is_read_or_is_an_error_with_its_name(how: tuple[str, int, int], finished: Path) -> None:
    try:
        coco(finished.parent, spoil(json.dumps(COCO).encode(), how))
    except Exception as error:
        if "bad" not in (message_for_user(error) or ""):
            raise


@fuzz
@example("[" * 3000)
@given(st.text('[]{}:,"0eE-.\\u ', max_size=40))
def test_json_is_parsed_or_a_value_error(text: str) -> None:
    try:
        parse_json(text)
    except ValueError:
        return


def test_parquet_written_here_has_checksums(tmp_path: Path) -> None:
    write_parquet(pa.table({"caption": ["a fox"] * 100}), tmp_path / "bad.parquet")
    content = (tmp_path / "bad.parquet").read_bytes()
    assert pq.read_table(tmp_path / "bad.parquet").num_rows == 100
    assert any(
        "CRC" in str(error)
        for error in (_error_of(tmp_path, spoil(content, ("flip", place, 1))) for place in range(20, 60))
    )


def _error_of(folder: Path, content: bytes) -> Exception | None:
    try:
        read_parquet(Path(write(folder, "bad.parquet", content)))
    except ValueError as error:
        return error
    return None
