"""What ``synth2 caption`` does."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

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
from synth2_lightning.console import MessageConsole
from synth2_lightning.shards.picture_captions import Format, PictureCaptionFile, PictureCaptionStream
from synth2_lightning.sources.picture_files import FoundPictures
from synth2_lightning.sources.picture_urls import PictureFetcher
from synth2_lightning.sources.pictures import decode_picture, pixel_limit

SOME_FAILED, STOPPED_BY_USER, STOPPED_BY_READER = 3, 130, 141
"""Exit codes; the last two are those of shells for Ctrl-C and for a pipe that nobody reads."""


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
        The exit code: 0; 3 if some pictures could not be read; 130 or 141 if the user, or whoever reads the output,
        stopped it.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If the file holds something else, or captions that were made in another way.
    """
    console = console or MessageConsole(stderr=True)
    if found.num_others:
        _tell(
            console,
            f"Left out of the folders, because their names do not end like those of pictures: {found.num_others}.",
        )
    for name, reason in found.missing:
        _tell(console, f"{name}: {reason}", "red")
    run = _Run(captioner, batch_size, max_pixels, console)
    try:
        if out is None:
            run.caption(found.names, PictureCaptionStream(format))
        else:
            with PictureCaptionFile(out, format, captioner.provenance()) as file:
                run.go_on(found.names, file)
    except KeyboardInterrupt:
        _tell(console, f"Stopped.{'' if out is None else f' The same command goes on from what is in {out}.'}")
        return STOPPED_BY_USER
    except BrokenPipeError:  # such as `| head`; what is left in Python's own buffer must not be written at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return STOPPED_BY_READER
    num_failed = run.num_failed + len(found.missing)
    if num_failed:
        _tell(console, f"Named above because they could not be read, and without a caption: {num_failed}.", "red")
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


class _Run:
    def __init__(self, captioner: Captioner, batch_size: int, max_pixels: int, console: Console) -> None:
        self.captioner = captioner
        self.batch_size = batch_size
        self.max_pixels = max_pixels
        self.console = console
        self.num_failed = 0

    def go_on(self, names: Sequence[str], file: PictureCaptionFile) -> None:
        left = [name for name in names if name not in file.names]  # bad ones again: they may have been repaired
        if num_done := len(names) - len(left):
            _tell(self.console, f"{num_done} of {len(names)} pictures have their caption in {file.path} already.")
        if left:
            self.caption(left, file)
        _tell(self.console, f"{len(file.names)} captions are in {file.path}.")

    def caption(self, names: Sequence[str], sink: PictureCaptionFile | PictureCaptionStream) -> None:
        read = make_reader(self.captioner.image_size, self.max_pixels)
        with pixel_limit(self.max_pixels), _progress(self.console) as progress:
            task = progress.add_task("", total=len(names))
            for batch in self.captioner.stream(names, read, self.batch_size):
                sink.append([(name, made.caption) for name, made in batch if made.error is None])
                for error in (made.error for _, made in batch if made.error is not None):
                    self.num_failed += 1
                    _tell(progress.console, str(error), "red")
                progress.advance(task, len(batch))


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} pictures/s" if speed else "")


def _progress(console: Console) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), _RateColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


def _tell(console: Console, message: str, style: str = "") -> None:
    console.print(Text(message, style=style), soft_wrap=True)
