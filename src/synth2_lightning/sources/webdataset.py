"""Tar files of images and captions in the format of img2dataset (https://github.com/rom1504/img2dataset)."""

import re
import tarfile
from collections.abc import Iterator, Sequence
from glob import glob
from io import BytesIO
from itertools import product
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from synth2_lightning.io.json_text import decode_text, parse_json
from synth2_lightning.io.locations import resolve
from synth2_lightning.io.paths import expand_home, require_file
from synth2_lightning.io.remote import is_remote, match_remote
from synth2_lightning.sources.base import Entry, IndexedSource, SkipCounter
from synth2_lightning.sources.image_files import SUFFIXES, is_hidden
from synth2_lightning.sources.images import decode_image

_MAX_CAPTION_BYTES = 2**20
_MAX_TARS = 1_000_000
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_NUM_NAMED = 5


class TarSource(IndexedSource):
    """Image source of uncompressed tar files, read by random access without extracting them.

    ``load()`` scans the tars for the offsets of their members. Members with the same path up to the last suffix form a
    sample: ``000012.jpg`` with ``000012.txt``, or with ``000012.json`` and its field ``caption``. That path is the key,
    prefixed by the name of the tar if an earlier tar has the same key, as in ``00001/000012``. Members without a
    counterpart, such as ``000012.seg.png``, and further images or captions of a key are skipped and counted. Suffixes
    are case-insensitive.

    Args:
        tars: A file, a pattern such as ``cc12m/*.tar`` or ``s3://bucket/cc12m/*.tar``, a range such as
            ``cc12m/{00000..00012}.tar``, all tars of which must exist, or a list of these. Remote tars are downloaded
            when they are scanned.
        name: Short name for logs.
        limit: Maximum number of images, from the first; ``None`` keeps all.
    """

    def __init__(self, tars: str | Sequence[str], name: str = "webdataset", limit: int | None = None) -> None:
        super().__init__(name, limit)
        self.tars = (tars,) if isinstance(tars, str) else tuple(tars)

    def read_index(self, skipped: SkipCounter) -> Iterator[Entry]:
        """Yield the samples of all tars, in the order of their names.

        Raises:
            FileNotFoundError: If a pattern matches nothing, or tars of a range are missing.
            OSError: If a tar is damaged.
            ValueError: If a range is empty or too long.
        """
        used: set[str] = set()
        for tar in self._find():
            path = str(resolve(tar, f"tar of source {self.name!r}")) if is_remote(tar) else tar
            for entry in _scan(path, skipped):
                key = _make_unique(entry.key, PurePosixPath(tar), used)
                used.add(key)
                yield entry._replace(key=key)

    def _find(self) -> list[str]:
        """Return the unique paths and URLs of all tars in order."""
        found: dict[str, None] = {}
        missing: list[str] = []
        for pattern in self.tars:
            for name in _expand_range(pattern):
                try:
                    found.update(dict.fromkeys(self._match(name)))
                except FileNotFoundError:
                    if name == pattern:
                        raise
                    missing.append(name)
        if missing:
            names = ", ".join(missing[:_NUM_NAMED]) + (", and others" if len(missing) > _NUM_NAMED else "")
            raise FileNotFoundError(
                f"{len(missing)} tars in the ranges of source {self.name!r} are missing: {names} (searched in "
                f"{Path.cwd()}). Expected all of them: download them, or change the ranges."
            )
        return list(found)

    def _match(self, name: str) -> list[str]:
        if is_remote(name):
            return match_remote(name, f"tars of source {self.name!r}")
        path = expand_home(name)
        if path.is_file():  # its name may contain brackets
            return [str(path)]
        if paths := sorted(glob(str(path))):  # noqa: PTH207  # Path.glob takes no absolute pattern
            return paths
        raise FileNotFoundError(
            f"No tar of source {self.name!r} matches {name!r} (searched in {Path.cwd()}). Expected a file, a pattern "
            "such as 'cc12m/*.tar', or a range such as 'cc12m/{00000..00012}.tar'."
        )

    def read_image(self, location: dict[str, Any]) -> Image.Image:
        """Return the image of a tar member."""
        with Path(location["tar"]).open("rb") as file:
            file.seek(location["offset"])
            content = file.read(location["size"])
        return decode_image(BytesIO(content), f"{location['tar']}:{location['member']}")


def _expand_range(pattern: str) -> list[str]:
    """Return the names of a pattern: all combinations of the numbers of ranges such as ``{00000..00012}`` in it."""
    if Path(pattern).exists():
        return [pattern]
    start, *parts = _RANGE.split(pattern)
    choices: list[list[str]] = [[start]]
    for first, last, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
        numbers = range(int(first), int(last) + 1)
        if not 0 < len(numbers) * prod(map(len, choices)) <= _MAX_TARS:
            raise ValueError(
                f"The range of tars {pattern!r} is empty or longer than {_MAX_TARS}; expected an ascending one, such "
                "as {00000..00012}."
            )
        choices.append([f"{number:0{width}d}{text}" for number in numbers])
    return list(map("".join, product(*choices)))


def _make_unique(key: str, tar: PurePosixPath, used: set[str]) -> str:
    """Return the key, prefixed by as many parts of the tar's path as make it unique."""
    parts = tar.with_suffix("").parts
    candidates = (key, *("/".join((*parts[-count:], key)) for count in range(1, len(parts) + 1)))
    return next((candidate for candidate in candidates if candidate not in used), key)


def _scan(path: str, skipped: SkipCounter) -> Iterator[Entry]:
    captions: dict[tuple[str, str], str] = {}
    locations: dict[str, dict[str, Any] | None] = {}
    num_bytes = require_file(Path(path)).stat().st_size
    try:
        with tarfile.open(path, mode="r:") as tar:
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
                    if locations.get(key) is not None:
                        skipped.add("repeated images of a key in a tar", name)
                        continue
                    start = member.offset_data
                    locations[key] = {"tar": path, "member": member.name, "offset": start, "size": member.size}
                elif suffix not in {".txt", ".json"}:
                    skipped.add("members that are neither images nor captions", name)
                elif member.size > _MAX_CAPTION_BYTES:
                    skipped.add(f"captions of more than {_MAX_CAPTION_BYTES} bytes", name)
                elif (key, suffix) in captions:
                    skipped.add("repeated captions of a key in a tar", name)
                else:
                    locations.setdefault(key, None)
                    captions[key, suffix] = _read_caption(tar, member, suffix, path)
            _check_end(Path(path), tar.offset)
    # tarfile raises errors of many classes for damaged headers.
    except (tarfile.TarError, OverflowError, EOFError, RecursionError, UnicodeDecodeError) as error:
        raise OSError(
            f"{path} cannot be read as a tar ({error}); expected an uncompressed, complete one. If it is compressed, "
            "unpack it with gunzip; if it is damaged, download it again or exclude it from the pattern."
        ) from error
    for key, location in locations.items():
        # img2dataset writes the caption to both files; .txt takes precedence.
        texts = [captions[key, suffix] for suffix in (".txt", ".json") if (key, suffix) in captions]
        yield Entry(key, texts[:1], location)


def _check_end(path: Path, end: int) -> None:
    """Check that only zeros follow the last member: tarfile treats damaged headers and truncation as the end."""
    with path.open("rb") as file:
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
