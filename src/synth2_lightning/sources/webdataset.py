"""Tars of pictures and captions, as img2dataset writes them (https://github.com/rom1504/img2dataset)."""

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

from synth2_lightning.files import expand_home, require_file
from synth2_lightning.jsontext import decode_text, parse_json
from synth2_lightning.locations import resolve
from synth2_lightning.remote import is_remote, match_remote
from synth2_lightning.sources.base import Entry, IndexedSource, LeftOut
from synth2_lightning.sources.picture_files import SUFFIXES, is_hidden
from synth2_lightning.sources.pictures import decode_picture

_MAX_CAPTION_BYTES = 2**20
_MAX_TARS = 1_000_000
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_NUM_NAMED = 5


class _DamageError(Exception):
    pass


class TarSource(IndexedSource):
    """Pictures and captions inside uncompressed tars, read at random where they lie; nothing is unpacked.

    The tars are scanned once for the places of their members. A sample is what shares a path up to its last suffix:
    ``000012.jpg`` with ``000012.txt``, or with ``000012.json`` and its field ``caption``; ``22.05.jpg`` with
    ``22.05.txt``. That path is the key; where an earlier tar has the same one, the tar's name comes before it, as in
    ``00001/000012``. Whatever has no partner, such as ``000012.seg.png``, is left out, counted and named, and so are
    other members of a key that has its picture or its caption already. Suffixes may be in capitals.

    Args:
        tars: A file, a pattern such as ``cc12m/*.tar`` or ``s3://bucket/cc12m/*.tar``, a range such as
            ``cc12m/{00000..00012}.tar``, all tars of which must be there, or several of these. Tars behind addresses
            are fetched, one after another, when they are scanned.
        name: Short name for logs.
        limit: Keep the first pictures only.

    Example:
        >>> TarSource("cc12m/*.tar", name="cc12m").tars
        ('cc12m/*.tar',)
    """

    def __init__(self, tars: str | Sequence[str], name: str = "webdataset", limit: int | None = None) -> None:
        super().__init__(name, limit)
        self.tars = (tars,) if isinstance(tars, str) else tuple(tars)

    def read_index(self, left_out: LeftOut) -> Iterator[Entry]:
        """Scan the tars in the order of their names, each once.

        Raises:
            FileNotFoundError: If a pattern matches nothing, or tars of a range are missing.
            OSError: If a tar is damaged.
            ValueError: If a range is absurdly long.
        """
        taken: set[str] = set()
        for tar in self._find():
            path = str(resolve(tar, f"tar of source {self.name!r}")) if is_remote(tar) else tar
            for entry in _scan(path, left_out):
                key = _make_unique(entry.key, PurePosixPath(tar), taken)
                taken.add(key)
                yield entry._replace(key=key)

    def _find(self) -> list[str]:
        """Return paths and addresses in their order."""
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
            named = ", ".join(missing[:_NUM_NAMED]) + (", and others" if len(missing) > _NUM_NAMED else "")
            raise FileNotFoundError(
                f"{len(missing)} tars in the ranges of source {self.name!r} are missing: {named} (looked from "
                f"{Path.cwd()}). Expected all of them: fetch them, or name the ranges that are there."
            )
        return list(found)

    def _match(self, name: str) -> list[str]:
        if is_remote(name):
            return match_remote(name, f"tars of source {self.name!r}")
        path = expand_home(name)
        if path.is_file():  # its name may hold brackets
            return [str(path)]
        if paths := sorted(glob(str(path))):  # noqa: PTH207  # Path.glob takes no absolute pattern
            return paths
        raise FileNotFoundError(
            f"No tar of source {self.name!r} matches {name!r} (looked from {Path.cwd()}). Expected a file, or a "
            "pattern such as 'cc12m/*.tar', or a range such as 'cc12m/{00000..00012}.tar'."
        )

    def read_picture(self, location: dict[str, Any]) -> Image.Image:
        """Read a picture out of its tar."""
        with Path(location["tar"]).open("rb") as file:
            file.seek(location["offset"])
            content = file.read(location["size"])
        return decode_picture(BytesIO(content), f"{location['tar']}:{location['member']}")


def _expand_range(pattern: str) -> list[str]:
    """Return the names that a pattern stands for: ``{00000..00012}`` in it, once or more, is every number of them."""
    if Path(pattern).exists():
        return [pattern]
    start, *parts = _RANGE.split(pattern)
    choices: list[list[str]] = [[start]]
    for first, last, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
        numbers = range(int(first), int(last) + 1)
        if not 0 < len(numbers) * prod(map(len, choices)) <= _MAX_TARS:
            raise ValueError(
                f"The range of tars {pattern!r} stands for none, or for more than {_MAX_TARS}; expected one that "
                "ascends, such as {00000..00012}."
            )
        choices.append([f"{number:0{width}d}{text}" for number in numbers])
    return list(map("".join, product(*choices)))


def _make_unique(key: str, tar: PurePosixPath, taken: set[str]) -> str:
    """Return the key, after as much of the tar's path as it takes to tell it from those of other tars."""
    parts = tar.with_suffix("").parts
    candidates = (key, *("/".join((*parts[-count:], key)) for count in range(1, len(parts) + 1)))
    return next((candidate for candidate in candidates if candidate not in taken), key)


def _scan(path: str, left_out: LeftOut) -> Iterator[Entry]:
    captions: dict[tuple[str, str], str] = {}
    places: dict[str, dict[str, Any] | None] = {}
    num_bytes = require_file(Path(path)).stat().st_size
    try:
        with tarfile.open(path, mode="r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                if not 0 <= member.size <= num_bytes:  # or the next would be looked for before this one, for ever
                    raise _DamageError(f"its member {member.name!r} says that it has {member.size} bytes")
                inner = PurePosixPath(member.name)
                key, suffix = str(inner.with_suffix("")) if inner.name else "", inner.suffix.lower()
                name = f"{path}:{member.name}"
                if not _is_plain(member, inner):
                    left_out.add("members that are no plain file below the tar's root", name)
                elif is_hidden(inner):
                    left_out.add("hidden members", name)
                elif suffix in SUFFIXES:
                    if places.get(key) is not None:
                        left_out.add("pictures of a key that has one already in its tar", name)
                        continue
                    start = member.offset_data
                    places[key] = {"tar": path, "member": member.name, "offset": start, "size": member.size}
                elif suffix not in {".txt", ".json"}:
                    left_out.add("members that are neither pictures nor captions", name)
                elif member.size > _MAX_CAPTION_BYTES:
                    left_out.add(f"captions of more than {_MAX_CAPTION_BYTES} bytes", name)
                elif (key, suffix) in captions:
                    left_out.add("captions of a key that has one already in its tar", name)
                else:
                    places.setdefault(key, None)
                    captions[key, suffix] = _read_caption(tar, member, suffix, path)
            _check_end(Path(path), tar.offset)
    # What a damaged header holds, tarfile stumbles over in its own ways.
    except (tarfile.TarError, OverflowError, EOFError, RecursionError, UnicodeDecodeError, _DamageError) as error:
        raise OSError(
            f"{path} cannot be read as a tar ({error}); expected an uncompressed, complete one. Unpack it with gunzip "
            "if it is compressed; download it again, or take it out of the pattern, if it is damaged."
        ) from error
    for key, place in places.items():
        # A caption of its own outranks the one among the metadata: img2dataset writes both.
        texts = [captions[key, suffix] for suffix in (".txt", ".json") if (key, suffix) in captions]
        yield Entry(key, texts[:1], place)


def _check_end(path: Path, end: int) -> None:
    """See that a tar ends where reading it ended: tarfile takes a damaged header for the end, and a cut, too."""
    with path.open("rb") as file:
        file.seek(end)
        if len(file.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
            raise _DamageError(f"it ends after {end} bytes, without the mark of its end")
        file.seek(end)
        while rest := file.read(2**20):
            if rest.strip(b"\0"):
                raise _DamageError(f"what follows after {end} bytes is no member that can be read")


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
            f"{path}:{member.name} holds no caption ({error}); expected UTF-8 text, or a JSON object with 'caption'."
        ) from error
    return " ".join((caption or "").split())
