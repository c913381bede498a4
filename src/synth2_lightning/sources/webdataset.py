"""Tars of pictures and captions, as img2dataset writes them (https://github.com/rom1504/img2dataset)."""

import tarfile
from collections.abc import Iterator, Sequence
from glob import glob
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from synth2_lightning.files import require_file
from synth2_lightning.jsontext import parse_json
from synth2_lightning.locations import resolve
from synth2_lightning.remote import is_remote, match_remote
from synth2_lightning.sources.base import Entry, IndexedSource, LeftOut
from synth2_lightning.sources.pictures import decode_picture

_PICTURES = {"jpg", "jpeg", "png", "webp"}
_MAX_CAPTION_BYTES = 2**20


class _DamageError(Exception):
    pass


class TarSource(IndexedSource):
    """Pictures and captions inside uncompressed tars, read at random where they lie; nothing is unpacked.

    The tars are scanned once for the places of their members. A sample is what shares a name up to its first dot:
    ``000012.jpg`` with ``000012.txt``, or with ``000012.json`` and its field ``caption``. The name is the key.

    Args:
        tars: A file or a pattern such as ``cc12m/*.tar`` or ``s3://bucket/cc12m/*.tar``, or several. Tars behind
            addresses are fetched, one after another, when they are scanned.
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
        """Scan the tars in the order of their names.

        Raises:
            FileNotFoundError: If a pattern matches nothing.
            OSError: If a tar is damaged.
        """
        for pattern in self.tars:
            if is_remote(pattern):
                for address in match_remote(pattern, f"tars of source {self.name!r}"):
                    yield from _scan(str(resolve(address, f"tar of source {self.name!r}")), left_out)
                continue
            paths = sorted(glob(str(Path(pattern).expanduser())))  # noqa: PTH207  # Path.glob takes no absolute pattern
            if not paths:
                raise FileNotFoundError(
                    f"No tar of source {self.name!r} matches {pattern!r} (looked from {Path.cwd()}). Expected a file, "
                    "or a pattern such as 'cc12m/*.tar'."
                )
            for path in paths:
                yield from _scan(path, left_out)

    def read_picture(self, location: dict[str, Any]) -> Image.Image:
        """Read a picture out of its tar."""
        with Path(location["tar"]).open("rb") as file:
            file.seek(location["offset"])
            content = file.read(location["size"])
        return decode_picture(BytesIO(content), f"{location['tar']}:{location['member']}")


def _scan(path: str, left_out: LeftOut) -> Iterator[Entry]:
    captions: dict[str, str] = {}
    places: dict[str, dict[str, Any] | None] = {}
    num_bytes = require_file(Path(path)).stat().st_size
    try:
        with tarfile.open(path, mode="r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                if not 0 <= member.size <= num_bytes:  # or the next would be looked for before this one, for ever
                    raise _DamageError(f"its member {member.name!r} says that it has {member.size} bytes")
                key, suffix = _split_name(member.name)
                if not _is_plain(member):
                    left_out.add("members that are no plain file below the tar's root", f"{path}:{member.name}")
                elif suffix in _PICTURES:
                    places[key] = {
                        "tar": path,
                        "member": member.name,
                        "offset": member.offset_data,
                        "size": member.size,
                    }
                elif suffix in {"txt", "json"} and member.size > _MAX_CAPTION_BYTES:
                    left_out.add(f"captions of more than {_MAX_CAPTION_BYTES} bytes", f"{path}:{member.name}")
                elif suffix in {"txt", "json"}:
                    places.setdefault(key, None)
                    text = _read_caption(tar, member, suffix, path)
                    # A caption of its own outranks the one among the metadata: img2dataset writes both.
                    if suffix == "txt" or key not in captions:
                        captions[key] = text
            _check_end(Path(path), tar.offset)
    # What a damaged header holds, tarfile stumbles over in its own ways.
    except (tarfile.TarError, OverflowError, EOFError, RecursionError, UnicodeDecodeError, _DamageError) as error:
        raise OSError(
            f"{path} cannot be read as a tar ({error}); expected an uncompressed, complete one. Unpack it with gunzip "
            "if it is compressed; download it again, or take it out of the pattern, if it is damaged."
        ) from error
    for key, place in places.items():
        yield Entry(key, [captions[key]] if key in captions else [], place)


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


def _split_name(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    stem, _, suffix = path.name.partition(".")
    return str(path.parent / stem), suffix.lower()


def _is_plain(member: tarfile.TarInfo) -> bool:
    path = PurePosixPath(member.name)
    return member.isreg() and not member.issparse() and not path.is_absolute() and ".." not in path.parts


def _read_caption(tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str, path: str) -> str:
    file = tar.extractfile(member)
    assert file is not None, "plain files can be extracted"
    content = file.read()
    try:
        caption = parse_json(content).get("caption") if suffix == "json" else content.decode("utf-8")
        if not isinstance(caption, str | None):
            raise ValueError(f"it is {caption!r:.80}")
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}:{member.name} holds no caption ({error}); expected UTF-8 text, or a JSON object with 'caption'."
        ) from error
    return " ".join((caption or "").split())
