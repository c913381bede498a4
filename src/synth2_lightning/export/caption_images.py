"""Implementation of ``synth2 caption``."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
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

from synth2_lightning.export.captioner import BATCH_SIZE, Captioner
from synth2_lightning.export.image_inputs import MAX_PIXELS
from synth2_lightning.io.console import MessageConsole
from synth2_lightning.shards.image_captions import Format, ImageCaptionFile, ImageCaptionStream
from synth2_lightning.sources.image_files import FoundImages
from synth2_lightning.sources.image_urls import ImageFetcher
from synth2_lightning.sources.images import decode_image, pixel_limit

SOME_FAILED, STOPPED_BY_USER, STOPPED_BY_READER = 3, 130, 141
"""Exit codes; the last two are the shell's codes of SIGINT and SIGPIPE."""


def caption_images(
    found: FoundImages,
    captioner: Captioner,
    out: Path | None = None,
    format: Format = "text",
    batch_size: int = BATCH_SIZE,
    max_pixels: int = MAX_PIXELS,
    console: Console | None = None,
    ids: Mapping[str, int | str] | None = None,
) -> int:
    """Write captions of images to a file or to standard output; report progress and unreadable images.

    Args:
        found: The images.
        captioner: Generates the captions.
        out: Output file. Images whose caption is already in it are skipped.
        format: Format of the rows.
        batch_size: Number of images per batch.
        max_pixels: Maximum number of pixels of an image.
        console: Standard error by default.
        ids: Ids by image name; required by the format ``coco``.

    Returns:
        The exit code: 0; 3 if some images could not be read; 130 after Ctrl-C; 141 if the output pipe was closed.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If the file holds other content, or captions of another model or decoding.
    """
    console = console or MessageConsole(stderr=True)
    if found.num_others:
        _print(console, f"Skipped files in the folders that have no image extension: {found.num_others}.")
    for name, reason in found.missing:
        _print(console, f"{name}: {reason}", "red")
    run = _Run(captioner, batch_size, max_pixels, console)
    try:
        if out is None:
            run.caption(found.names, ImageCaptionStream(format))
        else:
            with ImageCaptionFile(out, format, captioner.provenance(), ids) as file:
                run.resume(found.names, file)
    except KeyboardInterrupt:
        _print(console, f"Stopped.{'' if out is None else f' The same command resumes from {out}.'}")
        return STOPPED_BY_USER
    except BrokenPipeError:  # such as `| head`; Python would write its buffer to the closed pipe at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return STOPPED_BY_READER
    num_failed = run.num_failed + len(found.missing)
    if num_failed:
        _print(console, f"Images that could not be read and have no caption: {num_failed}. See above.", "red")
    return SOME_FAILED if num_failed else 0


def make_reader(image_size: int, max_pixels: int = MAX_PIXELS) -> Callable[[str], Image.Image]:
    """Return a function that reads the image at a path or URL."""
    fetcher = ImageFetcher()

    def read(name: str) -> Image.Image:
        file = fetcher.fetch(name) if "://" in name else Path(name)
        return decode_image(file, name, max_pixels, wanted_size=image_size)

    return read


class _Run:
    def __init__(self, captioner: Captioner, batch_size: int, max_pixels: int, console: Console) -> None:
        self.captioner = captioner
        self.batch_size = batch_size
        self.max_pixels = max_pixels
        self.console = console
        self.num_failed = 0

    def resume(self, names: Sequence[str], file: ImageCaptionFile) -> None:
        remaining = [name for name in names if name not in file.names]  # includes images that failed before
        if num_done := len(names) - len(remaining):
            _print(self.console, f"{num_done} of {len(names)} images already have a caption in {file.path}.")
        if remaining:
            self.caption(remaining, file)
        _print(self.console, f"{file.path} has {len(file.names)} captions.")

    def caption(self, names: Sequence[str], sink: ImageCaptionFile | ImageCaptionStream) -> None:
        read = make_reader(self.captioner.image_size, self.max_pixels)
        with pixel_limit(self.max_pixels), _progress(self.console) as progress:
            task = progress.add_task("", total=len(names))
            for batch in self.captioner.stream(names, read, self.batch_size):
                sink.append([(name, captioned.caption) for name, captioned in batch if captioned.error is None])
                for error in (captioned.error for _, captioned in batch if captioned.error is not None):
                    self.num_failed += 1
                    _print(progress.console, str(error), "red")
                progress.advance(task, len(batch))


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} images/s" if speed else "")


def _progress(console: Console) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), _RateColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


def _print(console: Console, message: str, style: str = "") -> None:
    console.print(Text(message, style=style), soft_wrap=True)
