"""Indexes of tar files: keys, captions and offsets of images, kept in the cache and memory-mapped.

An index is kept under name, size and version of its tar (:class:`~synth2_lightning.sources.tar_files.TarFile`).
"""

import hashlib
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pyarrow as pa

from synth2_lightning.io.index_files import SECONDS_TO_WAIT, Index, open_index
from synth2_lightning.io.json_text import decode_text, parse_json
from synth2_lightning.io.remote import is_remote
from synth2_lightning.sources.base import Entry, SkipCounter, check_entry
from synth2_lightning.sources.image_files import SUFFIXES, is_hidden
from synth2_lightning.sources.tar_files import TarFile

_FORMAT = 1  # of the columns
_MAX_CAPTION_BYTES = 2**20
SCHEMA = pa.schema(
    {
        "key": pa.large_string(),
        "hash": pa.uint64(),
        "captions": pa.large_list(pa.large_string()),
        "member": pa.large_string(),
        "offset": pa.int64(),
        "size": pa.int64(),
    }
)


def open_tar_indexes(tars: Sequence[TarFile], limit: int | None = None) -> list[Index]:
    """Return the indexes of tars, memory-mapped from the cache; tars without one are scanned.

    Processes that start together share the scans: each leaves to the others what they scan, and waits at the end.
    Without a writable cache each scans all tars, and keeps their indexes in memory.

    Args:
        tars: The tars.
        limit: Number of samples; tars behind those that have as many are left out.

    Raises:
        OSError: If a tar cannot be read or is damaged.
        ValueError: If a caption cannot be read.
    """
    found: dict[TarFile, Index] = {}
    num_samples = 0
    for number, tar in enumerate(tars, start=1):
        try:
            found[tar] = open_tar_index(tar, 0.0) if limit is None else open_tar_index(tar)
        except BlockingIOError:  # another process scans it
            continue
        num_samples += len(found[tar].rows)
        if limit is not None and num_samples >= limit:
            return [found[tar] for tar in tars[:number]]
    return [found[tar] if tar in found else open_tar_index(tar) for tar in tars]


def open_tar_index(
    tar: TarFile, seconds: float = SECONDS_TO_WAIT, scan: Callable[[TarFile], Index] | None = None
) -> Index:
    """Return the index of a tar, memory-mapped from the cache; a tar without one is scanned.

    Args:
        tar: The tar.
        seconds: Maximum time to wait for another process that scans it.
        scan: Returns the index of a tar; :func:`scan_tar` by default.

    Raises:
        BlockingIOError: If another process still scans it after that time.
        OSError: If the tar cannot be read or is damaged.
        ValueError: If a caption cannot be read.
    """
    path = tar.name if is_remote(tar.name) else str(Path(tar.name).absolute())
    return open_index(path, f"{_FORMAT} {tar.num_bytes} {tar.version}", lambda: (scan or scan_tar)(tar), seconds)


def scan_tar(tar: TarFile) -> Index:
    """Return the index of a tar by reading its headers and captions, in one pass.

    Returns:
        ``key``, ``hash`` (of the key), ``captions``, and ``member``, ``offset`` and ``size`` of the image. The notes
        are count and first example of the items that form no sample, by reason.

    Raises:
        OSError: If the tar cannot be read or is damaged.
        ValueError: If a caption cannot be read.
    """
    skipped = SkipCounter()
    images, captions = _read_members(tar, skipped)
    entries = [check_entry(Entry(key, captions.get(key, ()), image), skipped) for key, image in images.items()]
    kept = [entry for entry in entries if entry is not None]
    columns = {
        "key": [entry.key for entry in kept],
        "hash": [_hash(entry.key) for entry in kept],
        "captions": [entry.captions for entry in kept],
        **{name: [entry.location[name] for entry in kept] for name in ("member", "offset", "size")},
    }
    return Index(pa.RecordBatch.from_pydict(columns, SCHEMA), skipped.counts())


def _read_members(
    tar_file: TarFile, skipped: SkipCounter
) -> tuple[dict[str, dict[str, str | int] | None], dict[str, list[str]]]:
    """Return the location of the image and the caption of each key."""
    images: dict[str, dict[str, str | int] | None] = {}
    captions: dict[tuple[str, str], str] = {}
    path, num_bytes = tar_file.name, tar_file.num_bytes
    try:
        with tar_file.open() as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                if not 0 <= member.size <= num_bytes:  # a negative size would make the scan an endless loop
                    raise tarfile.ReadError(f"its member {member.name!r} has a size of {member.size} bytes")
                member_path = PurePosixPath(member.name)
                key, suffix = str(member_path.with_suffix("")) if member_path.name else "", member_path.suffix.lower()
                name = f"{path}:{member.name}"
                if not _is_plain(member, member_path):
                    skipped.add("members that are not plain files below the tar's root", name)
                elif is_hidden(member_path):
                    skipped.add("hidden members", name)
                elif suffix in SUFFIXES:
                    if images.get(key) is not None:
                        skipped.add("repeated images of a key in a tar", name)
                        continue
                    images[key] = {"member": member.name, "offset": member.offset_data, "size": member.size}
                elif suffix not in {".txt", ".json"}:
                    skipped.add("members that are neither images nor captions", name)
                elif member.size > _MAX_CAPTION_BYTES:
                    skipped.add(f"captions of more than {_MAX_CAPTION_BYTES} bytes", name)
                elif (key, suffix) in captions:
                    skipped.add("repeated captions of a key in a tar", name)
                else:
                    images.setdefault(key, None)
                    captions[key, suffix] = _read_caption(tar, member, suffix, path)
            _check_end(file, tar.offset)
    # tarfile raises errors of many classes for damaged headers.
    except (tarfile.TarError, OverflowError, EOFError, RecursionError, UnicodeDecodeError) as error:
        raise OSError(
            f"{path} cannot be read as a tar ({error}); expected an uncompressed, complete one. If it is compressed, "
            "unpack it with gunzip; if it is damaged, download it again or exclude it from the pattern."
        ) from error
    # img2dataset writes the caption to both files; .txt takes precedence.
    return images, {key: [captions.get((key, ".txt"), captions[key, suffix])] for key, suffix in captions}


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def _check_end(file: BinaryIO, end: int) -> None:
    """Check that only zeros follow the last member: tarfile treats damaged headers and truncation as the end."""
    file.seek(end)
    if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it ends after {end} bytes, without an end-of-archive block")
    file.seek(end)
    while rest := file.read(2**20):
        if rest.strip(b"\0"):
            raise tarfile.ReadError(f"the data after {end} bytes is not a valid member")


def _is_plain(member: tarfile.TarInfo, path: PurePosixPath) -> bool:
    return member.isreg() and not member.issparse() and not path.is_absolute() and ".." not in path.parts


def _read_caption(tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str, path: str) -> str:
    file = tar.extractfile(member)
    assert file is not None, "plain files can be extracted"
    content = file.read()
    try:
        caption = parse_json(content).get("caption") if suffix == ".json" else decode_text(content)
        if not isinstance(caption, str | None):
            raise ValueError(f"it is {caption!r:.80}")
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}:{member.name} has no caption ({error}); expected UTF-8 text, or a JSON object with 'caption'."
        ) from error
    return " ".join((caption or "").split())
