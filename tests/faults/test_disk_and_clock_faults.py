"""Full, failing and read-only disks, clock jumps, slow file systems: errors have a message, and no file is damaged."""

import errno
import json
import os
import re
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

import synth2_lightning
from synth2_lightning.callbacks.checkpoint_io import CheckedCheckpointIO, find_checkpoint_to_resume
from synth2_lightning.decoders.vocabulary import build_vocabulary
from synth2_lightning.generators.completion_cache import CompletionCache
from synth2_lightning.generators.muse import save_generator
from synth2_lightning.generators.request_limits import Pacer
from synth2_lightning.generators.server_replies import Failure, read_refusal
from synth2_lightning.io import atomic
from synth2_lightning.io.safetensors import read_safetensors
from synth2_lightning.nn.maskgit import MaskGit
from synth2_lightning.reports.scores import score_predictions
from synth2_lightning.shards.caption_set import CaptionSetWriter, stream_answers
from synth2_lightning.shards.image_captions import ImageCaptionFile
from synth2_lightning.shards.manifest import Manifest
from synth2_lightning.shards.parts import read_part
from synth2_lightning.shards.writer import ShardWriter, finish
from synth2_lightning.sources.read_ahead import read_ahead
from synth2_lightning.testing import TinyTextEncoder
from synth2_lightning.types import (
    ChatMessage,
    Completion,
    PromptBatch,
    SampleInfo,
    TokenizedImages,
    VQTokens,
    WrittenCaptions,
)

Write = Callable[[Path, int], None]
"""Writes state number N to a folder."""


def write_checkpoint(folder: Path, state: int) -> None:
    CheckedCheckpointIO().save_checkpoint({"global_step": state, "w": torch.ones(50_000)}, folder / "last.ckpt")


def write_shards(folder: Path, state: int) -> None:
    ids = torch.randint(512, (200, 256, 1), generator=torch.Generator().manual_seed(state))
    samples = tuple(SampleInfo(f"{state}-{number}", "s") for number in range(200))
    writer = ShardWriter(folder)
    writer.start({"seed": 0})
    writer.append(TokenizedImages(samples, (("a fox",),) * 200, VQTokens(ids, "tiny:1"), 512))
    writer.close()
    finish(folder, {})


def write_answers(folder: Path, state: int) -> None:
    prompts = ((ChatMessage("user", "dog"),),)
    batch = PromptBatch(prompts, (SampleInfo(f"dog-{state}", "pets", "dog", state),), ("plain@1",))
    writer = CaptionSetWriter(folder)
    writer.start({"seed": 0})
    text = os.urandom(100_000).hex()  # incompressible
    writer.append(WrittenCaptions(batch, (Completion(text, "stop", 80, 5),), "tiny"))
    writer.close()


def write_captions(folder: Path, state: int) -> None:
    with ImageCaptionFile(folder / "captions.jsonl", "jsonl", {"beams": 3}) as file:
        file.append([(f"{state}.jpg", "a fox " * 30_000)])


def write_scores(folder: Path, state: int) -> None:
    truth = {"annotations": [{"image_id": number, "caption": f"{number} foxes"} for number in range(3)]}
    made = [{"image_id": number, "caption": f"{state} foxes"} for number in range(3)]
    places = [folder.parent.parent / f"{folder.parent.name}-{name}.json" for name in ("made", "truth")]
    for place, content in zip(places, (made, truth), strict=True):
        place.write_text(json.dumps(content))
    score_predictions(str(places[0]), str(places[1]), folder / "card.json")


def write_cache(folder: Path, state: int) -> None:
    with CompletionCache(folder) as cache:
        cache.put(str(state).encode(), Completion("a fox " * 30_000, "stop", 1, 1))


def write_generator(folder: Path, state: int) -> None:
    network = MaskGit(6, 16, 1, (2, 2), text_dim=8, width=16, depth=1, num_heads=2)
    with torch.no_grad():
        for weight in network.parameters():
            weight.fill_(state)
    save_generator(folder, network, TinyTextEncoder(), "tiny:1")


def write_vocabulary(folder: Path, state: int) -> None:
    build_vocabulary([f"{state} foxes"] * 2, 1, folder)


BY_DRAFT: dict[str, Write] = {
    "checkpoint": write_checkpoint,
    "shards": write_shards,
    "answers": write_answers,
    "score card": write_scores,
    "generator": write_generator,
    "vocabulary": write_vocabulary,
}
ALL: dict[str, Write] = {**BY_DRAFT, "captions of images": write_captions, "cache of answers": write_cache}
FAULTS = {
    "full disk": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "quota": OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    "disk that fails": OSError(errno.EIO, os.strerror(errno.EIO)),
    "read-only": OSError(errno.EROFS, os.strerror(errno.EROFS)),
    "not allowed": PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
    "stale handle of a share": OSError(errno.ESTALE, os.strerror(errno.ESTALE)),
}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def raises(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("what", BY_DRAFT)
def test_what_cannot_be_written_leaves_what_was_there(
    what: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, write = tmp_path / "out", BY_DRAFT[what]
    write(folder, 1)
    before = snapshot(folder)
    with monkeypatch.context() as broken:
        # Full disks report the error when data are synchronized, read-only ones when a file is renamed.
        if fault in ("full disk", "quota", "disk that fails"):
            broken.setattr(atomic, "_sync", raises(FAULTS[fault]))
        else:
            broken.setattr(Path, "replace", raises(FAULTS[fault]))
        with pytest.raises(OSError, match=re.escape(FAULTS[fault].strerror or "")) as error:
            write(folder, 2)
    assert str(folder) in str(error.value)
    assert re.search("[Ee]xpected a (file|folder)|the same command", str(error.value))
    after = snapshot(folder)
    assert {name: content for name, content in before.items() if name in after} == after, "no draft, nothing new"
    assert before.keys() - after.keys() <= {"manifest.json", "README.md"}, (
        "a folder that is being added to is not finished"
    )
    write(folder, 2)
    assert snapshot(folder).keys() >= before.keys()


def test_a_run_resumes_from_what_was_written_before_the_disk_was_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_captions(tmp_path, 1)
    write_cache(tmp_path, 1)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", raises(FAULTS["full disk"]))
        with pytest.raises(OSError, match=r"captions\.jsonl.*No space left.*\b1 captions?\b"):
            write_captions(tmp_path, 2)
    content = (tmp_path / "captions.jsonl").read_bytes()
    (tmp_path / "captions.jsonl").write_bytes(content[:-70_000])  # a partial row, as a full disk leaves it
    with ImageCaptionFile(tmp_path / "captions.jsonl", "jsonl", {"beams": 3}) as file:
        assert file.names == {"1.jpg"}
    with CompletionCache(tmp_path) as cache:
        full = cache._connection.execute("PRAGMA page_count").fetchone()[0]
        cache._connection.execute(f"PRAGMA max_page_count = {full}")
        with pytest.raises(OSError, match=r"completions\.sqlite3.*\bfull\b"):
            cache.put(b"2", Completion("a fox " * 30_000, "stop", 1, 1))
        assert cache.get(b"1") is not None
        assert cache.get(b"2") is None


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Return a function that mounts a small disk in memory, where that is permitted."""
    place = tmp_path / "disk"
    place.mkdir()

    def run(options: str) -> Path:
        words = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
        try:
            done = subprocess.run(words, capture_output=True, check=False).returncode == 0
        except OSError:
            done = False
        if not done:
            pytest.skip("no disk can be mounted here")
        return place

    yield run
    # Lazily, because files on it may still be mapped into memory.
    subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("what", ALL)
def test_a_disk_that_is_full_keeps_the_last_good_state(what: str, mount: Callable[..., Path]) -> None:
    folder = mount("size=900k") / "out"
    ALL[what](folder, 0)
    filler = folder.parent / "filler"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    filler.write_bytes(b"0" * free)
    with pytest.raises(OSError, match=r"(?i)no space left|as by a full disk|disk is full|disk I/O") as error:
        ALL[what](folder, 1)
    assert str(folder) in str(error.value)
    filler.unlink()
    check(what, folder, {0})
    ALL[what](folder, 1)
    check(what, folder, {0, 1})


@pytest.mark.slow
@pytest.mark.parametrize("what", ALL)
def test_a_disk_that_is_read_only_is_named(what: str, mount: Callable[..., Path]) -> None:
    folder = mount("size=4m") / "out"
    ALL[what](folder, 0)
    assert subprocess.run(["mount", "-o", "remount,ro", str(folder.parent)], check=False).returncode == 0
    with pytest.raises(OSError, match=r"(?i)read-?only|unable to open") as error:
        ALL[what](folder, 1)
    assert str(folder) in str(error.value)
    assert re.search("[Ee]xpected a (file|folder)", str(error.value))
    assert subprocess.run(["mount", "-o", "remount,rw", str(folder.parent)], check=False).returncode == 0
    check(what, folder, {0})


def check(what: str, folder: Path, states: set[int]) -> None:
    """Check that a folder contains these states completely, and nothing else."""
    match what:
        case "checkpoint":
            assert CheckedCheckpointIO().load_checkpoint(folder / "last.ckpt")["global_step"] == max(states)
        case "shards":
            parts = [read_part(part)["key"].to_pylist() for part in folder.glob("*.parquet")]
            assert {key.split("-")[0] for keys in parts for key in keys} == {str(state) for state in states}
            assert sum(map(len, parts)) == 200 * len(states)
            if (folder / "manifest.json").exists():  # it is absent while records are added
                assert Manifest.read(folder).num_records == 200 * len(states)
        case "answers":
            assert pa.concat_tables(stream_answers(folder))["seed"].to_pylist() == sorted(states)
        case "captions of images":
            with ImageCaptionFile(folder / "captions.jsonl", "jsonl", {"beams": 3}) as file:
                assert file.names == {f"{state}.jpg" for state in states}
        case "cache of answers":
            with sqlite3.connect(folder / "completions.sqlite3") as database:
                found = {int(request) for (request,) in database.execute("SELECT request FROM completions")}
            assert found == states
        case "generator":
            weights = read_safetensors(folder / "generator.safetensors").values()
            assert {value for weight in weights for value in weight.flatten().tolist()} == {float(max(states))}
        case "vocabulary":
            words = AutoTokenizer.from_pretrained(folder).get_vocab()
            assert {state for state in range(2) if f"▁{state}" in words} == {max(states)}
        case _:
            assert json.loads((folder / "card.json").read_text())["num_images"] == 3
    assert not [*folder.glob("*.tmp"), *folder.glob(".draft-*")]


YEAR = 366 * 24 * 3600.0


@pytest.mark.parametrize("jump", [-YEAR, YEAR])
def test_a_clock_that_jumps_changes_no_pace_and_no_choice(
    jump: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pacer = Pacer(requests_per_minute=60.0)
    pacer.take_turn()
    for step in (1, 2):
        path = tmp_path / f"step={step}.ckpt"
        CheckedCheckpointIO().save_checkpoint({"global_step": step}, path)
        os.utime(path, (time.time() + step * jump,) * 2)
    monkeypatch.setattr(time, "time", lambda: 1.8e9 + jump)
    assert 0 < pacer.take_turn() <= 1.0
    assert find_checkpoint_to_resume([tmp_path], lambda content: []) == (tmp_path / "step=2.ckpt", [])


def test_a_date_to_wait_until_is_held_to_the_clock_of_the_server() -> None:
    now = datetime(1999, 1, 1, tzinfo=UTC)
    dates = {"date": format_datetime(now), "retry-after": format_datetime(now + timedelta(seconds=7))}
    refusal = read_refusal(429, dates, "slow down")
    assert isinstance(refusal, Failure)
    assert refusal.retry_after == 7.0


def test_no_module_uses_the_wall_clock_for_more_than_a_note() -> None:
    # A Retry-After date without a Date header; the time when a folder was finished; the start time of a write.
    allowed = {"server_replies.py", "part_writer.py", "locks.py"}
    root = Path(synth2_lightning.__file__).parent
    asking = {
        path.name for path in root.rglob("*.py") if re.search(r"\btime\.time\(|datetime\.now|utcnow", path.read_text())
    }
    assert asking <= allowed


def test_a_slow_write_is_never_seen_half(tmp_path: Path) -> None:
    path, seen = tmp_path / "card.json", []

    def write(draft: Path) -> None:
        for letter in "new":
            with draft.open("a") as file:
                file.write(letter)
            time.sleep(0.02)  # as slow as a network file system
            seen.append(path.read_text())

    path.write_text("old")
    atomic.write_atomically(path, write)
    assert seen == ["old"] * 3
    assert path.read_text() == "new"


def test_a_slow_share_costs_time_and_no_image() -> None:
    def read(name: str) -> Image.Image:
        time.sleep(0.01 * (int(name) % 3))
        if name == "5":
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return Image.new("RGB", (2, 2), (int(name),) * 3)

    names = [str(number) for number in range(9)]
    found = dict(read_ahead(names, read))
    assert list(found) == names
    assert isinstance(found.pop("5"), OSError)
    assert [image.getpixel((0, 0))[0] for image in found.values()] == [0, 1, 2, 3, 4, 6, 7, 8]  # type: ignore[union-attr,index]
