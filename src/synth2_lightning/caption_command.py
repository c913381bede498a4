"""What ``synth2 caption`` does."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from synth2_lightning.captioner import BATCH_SIZE, MAX_PIXELS, Captioner
from synth2_lightning.shards.picture_captions import Format, PictureCaptionFile, PictureCaptionStream, Row
from synth2_lightning.sources.picture_files import FoundPictures
from synth2_lightning.sources.picture_urls import PictureFetcher
from synth2_lightning.sources.pictures import decode_picture, pixel_limit

SOME_FAILED = 3
"""Exit code where captions were written, and some pictures could not be read."""


class _Sink(Protocol):
    def append(self, rows: Sequence[Row]) -> None: ...


def caption_pictures(
    found: FoundPictures,
    captioner: Captioner,
    out: Path | None = None,
    format: Format = "text",
    batch_size: int = BATCH_SIZE,
    max_pixels: int = MAX_PIXELS,
    console: Console | None = None,
) -> int:
    """Write captions of pictures to a file or the standard output; tell of progress and of bad pictures beside it.

    Args:
        found: The pictures.
        captioner: Writes the captions.
        out: The file. What is in it already is not made again.
        format: How rows are written.
        batch_size: How many pictures go through the model at a time.
        max_pixels: Refuse pictures with more.
        console: Where to tell of it; the standard error by default.

    Returns:
        The exit code: 0, or 3 if some pictures have no caption.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If the file holds something else, or captions that were made in another way.
    """
    console = console or Console(stderr=True)
    if found.num_others:
        _tell(console, f"{found.num_others} files of the folders are left out: their names are not those of pictures.")
    for name, reason in found.missing:
        _tell(console, f"{name}: {reason}", "red")
    if out is None:
        num_failed = _caption(found.names, captioner, PictureCaptionStream(format), batch_size, max_pixels, console)
    else:
        with PictureCaptionFile(out, format, captioner.provenance()) as file:
            left = [name for name in found.names if name not in file.names]
            if num_done := len(found.names) - len(left):
                _tell(console, f"{num_done} of {len(found.names)} pictures have their caption in {out} already.")
            num_failed = _caption(left, captioner, file, batch_size, max_pixels, console)
            _tell(console, f"{len(file.names)} captions are in {out}.")
    num_failed += len(found.missing)
    if num_failed:
        _tell(console, f"{num_failed} pictures could not be read and have no caption; they are named above.", "red")
    return SOME_FAILED if num_failed else 0


def make_reader(image_size: int, max_pixels: int = MAX_PIXELS) -> Callable[[str], Image.Image]:
    """Make what reads the picture of a path or of an address.

    Example:
        >>> make_reader(224)("gone.jpg")
        Traceback (most recent call last):
        OSError: The picture gone.jpg cannot be read: FileNotFoundError: [Errno 2] No such file or directory: 'gone.jpg'
    """
    fetcher = PictureFetcher()

    def read(name: str) -> Image.Image:
        file = fetcher.fetch(name) if "://" in name else Path(name)
        return decode_picture(file, name, max_pixels, wanted_size=image_size)

    return read


def _caption(
    names: Sequence[str], captioner: Captioner, sink: _Sink, batch_size: int, max_pixels: int, console: Console
) -> int:
    num_failed = 0
    read = make_reader(captioner.image_size, max_pixels)
    with pixel_limit(max_pixels), _progress(console) as progress:
        task = progress.add_task("", total=len(names))
        for batch in captioner.stream(names, read, batch_size):
            sink.append([(name, made.caption) for name, made in batch if made.error is None])
            for _, made in batch:
                if made.error is not None:
                    num_failed += 1
                    _tell(progress.console, str(made.error), "red")
            progress.advance(task, len(batch))
    return num_failed


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} pictures/s" if speed else "")


def _progress(console: Console) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), _RateColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


def _tell(console: Console, message: str, style: str = "") -> None:
    # File names are any bytes that a disk holds, and no markup.
    readable = message.encode("utf-8", errors="backslashreplace").decode("utf-8")
    console.print(Text(readable, style=style), soft_wrap=True)
