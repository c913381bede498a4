"""Tar files on disk and at URLs: found by pattern, with size and version, and read in parts."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from glob import glob
from itertools import product
from math import prod
from pathlib import Path
from typing import BinaryIO

from synth2_lightning.io.locations import check_location
from synth2_lightning.io.messages import name_first
from synth2_lightning.io.paths import expand_home, require_file
from synth2_lightning.io.remote import is_remote, match_remote
from synth2_lightning.io.remote_ranges import open_remote, read_range

_MAX_TARS = 1_000_000
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_NUM_REQUESTS = 16
_KIND = "tar"


@dataclass(frozen=True, slots=True)
class TarFile:
    """A tar file.

    Args:
        name: Path or URL.
        num_bytes: Its size.
        version: Identifies its content, with name and size: the ETag of a URL, the modification time of a path.
    """

    name: str
    num_bytes: int
    version: str

    @classmethod
    def of_path(cls, path: Path) -> "TarFile":
        """Return a tar on disk.

        Raises:
            OSError: If it is no file.
        """
        status = require_file(path).stat()
        return cls(str(path), status.st_size, str(status.st_mtime_ns))

    def open(self) -> BinaryIO:
        """Return the tar as a seekable file; at a URL it is read in blocks, without a copy."""
        return open_remote(self.name, self.num_bytes, _KIND) if is_remote(self.name) else Path(self.name).open("rb")


def read_part(tar: str, start: int, size: int) -> bytes:
    """Return some bytes of a tar, given by its path or URL; thread-safe.

    Raises:
        OSError: If it cannot be read.
    """
    if is_remote(tar):
        return read_range(tar, start, size, _KIND)
    with Path(tar).open("rb") as file:
        file.seek(start)
        return file.read(size)


def find_tars(patterns: Sequence[str], source: str) -> list[TarFile]:
    """Return the unique tars of patterns, in order.

    Args:
        patterns: Files, patterns such as ``cc12m/*.tar`` or ``s3://bucket/cc12m/*.tar``, or ranges such as
            ``cc12m/{00000..00012}.tar``, all tars of which must exist.
        source: Name of the image source, for messages.

    Raises:
        FileNotFoundError: If a pattern matches nothing, or tars of a range are missing.
        OSError: If a server cannot be reached, or does not state the size of a tar.
        ValueError: If a range is empty or too long.
    """
    found: dict[str, TarFile] = {}
    missing: list[str] = []
    for pattern in patterns:
        if is_remote(pattern):
            check_location(pattern)
        for name, tars in _match_all(_expand_range(pattern), source):
            if isinstance(tars, list):
                found.update((tar.name, tar) for tar in tars)
            elif name == pattern:
                raise tars
            else:
                missing.append(name)
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} tars in the ranges of source {source!r} are missing: {name_first(missing)} (searched in "
            f"{Path.cwd()}). Expected all of them: download them, or change the ranges."
        )
    return list(found.values())


def _match_all(names: Sequence[str], source: str) -> Iterator[tuple[str, list[TarFile] | FileNotFoundError]]:
    def match(name: str) -> list[TarFile] | FileNotFoundError:
        try:
            return _match(name, source)
        except FileNotFoundError as error:
            return error

    with ThreadPoolExecutor(_NUM_REQUESTS) as threads:
        yield from zip(names, (threads.map if is_remote(names[0]) else map)(match, names), strict=True)


def _match(name: str, source: str) -> list[TarFile]:
    if is_remote(name):
        files = match_remote(name, f"tars of source {source!r}")
        for address, file in files.items():
            if file.size is None:
                raise OSError(
                    f"The server does not state the size of {address}, a tar of source {source!r}; expected it, to "
                    "read the tar in parts. Copy the tar to a disk."
                )
        return [TarFile(address, file.size or 0, file.version) for address, file in files.items()]
    path = expand_home(name)
    if path.is_file():  # its name may contain brackets
        return [TarFile.of_path(path)]
    if paths := sorted(glob(str(path))):  # noqa: PTH207  # Path.glob takes no absolute pattern
        return [TarFile.of_path(Path(found)) for found in paths]
    raise FileNotFoundError(
        f"No tar of source {source!r} matches {name!r} (searched in {Path.cwd()}). Expected a file, a pattern "
        "such as 'cc12m/*.tar', or a range such as 'cc12m/{00000..00012}.tar'."
    )


def _expand_range(pattern: str) -> list[str]:
    """Return the names of a pattern: all combinations of the numbers of ranges such as ``{00000..00012}`` in it."""
    if Path(pattern).exists():
        return [pattern]
    start, *parts = _RANGE.split(pattern)
    choices: list[list[str]] = [[start]]
    for first, last, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        is_padded = any(len(bound) > 1 and bound[0] == "0" for bound in (first, last))
        width = max(len(first), len(last)) if is_padded else 0
        numbers = range(int(first), int(last) + 1)
        if not 0 < len(numbers) * prod(map(len, choices)) <= _MAX_TARS:
            raise ValueError(
                f"The range of tars {pattern!r} is empty or longer than {_MAX_TARS}; expected an ascending one, such "
                "as {00000..00012}."
            )
        choices.append([f"{number:0{width}d}{text}" for number in numbers])
    return list(map("".join, product(*choices)))
