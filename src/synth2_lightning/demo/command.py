"""What ``synth2 demo`` does."""

import os
import signal
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from synth2_lightning.captioner import Captioner, load_captioner
from synth2_lightning.console import MessageConsole
from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.demo.answers import Answerer
from synth2_lightning.demo.neighbours import Neighbours
from synth2_lightning.demo.port import refuse_taken_port
from synth2_lightning.demo.run_data import build_data_part
from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.locations import resolve
from synth2_lightning.sharing.folder import is_exported
from synth2_lightning.sharing.runs import find_run
from synth2_lightning.signals import keep_sigterm

NUM_EXAMPLES = 6


def serve_demo(
    run: str, port: int = 7860, device: torch.device | str | None = None, from_hub: Collection[str] = ()
) -> None:
    """Serve the page until the user stops it.

    Args:
        run: Folder of a run, a checkpoint, or an exported captioner.
        port: Of the loopback address.
        device: As for :class:`~synth2_lightning.captioner.Captioner`.
        from_hub: As for :func:`~synth2_lightning.captioner.load_captioner`.

    Raises:
        FileNotFoundError: If there is no such run.
        OSError: If gradio is not installed, or the port is taken.
        ValueError: If it is no captioner's run.
    """
    console = MessageConsole(stderr=True)
    with keep_sigterm():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that dropped pictures are deleted then, too
        with open_demo(run, port, device, console, from_hub) as page:
            console.print(f"The page is at {page.local_url} for this machine alone. Ctrl-C ends it.")
            try:
                Event().wait()
            except KeyboardInterrupt:
                console.print("Stopped.")


@contextmanager
def open_demo(
    run: str, port: int, device: torch.device | str | None, console: Console, from_hub: Collection[str] = ()
) -> Iterator[Any]:
    """Serve the page while the context lasts; pictures that were dropped are deleted at its end.

    Args:
        run: As for :func:`serve_demo`.
        port: As for :func:`serve_demo`.
        device: As for :func:`serve_demo`.
        console: Where to tell of progress.
        from_hub: As for :func:`serve_demo`.

    Raises:
        FileNotFoundError: As for :func:`serve_demo`.
        OSError: As for :func:`serve_demo`.
        ValueError: As for :func:`serve_demo`.
    """
    if find_spec("gradio") is None:
        raise OSError(
            "synth2 demo shows its page by gradio, which is not installed; expected the extra `demo`. Install it with "
            '`pip install "synth2-lightning[demo]"`.'
        )
    refuse_taken_port(port)
    captioner = load_captioner(run, device, from_hub=from_hub)
    folder = find_folder(run)
    with (
        tempfile.TemporaryDirectory(prefix="synth2-demo-") as scratch,
        _uploads_in(Path(scratch) / "uploads") as uploads,
    ):
        from synth2_lightning.demo.page import serve_page

        neighbours, note = read_pairs(captioner, folder, Path(scratch) / "means.bin", console)
        examples = save_examples(folder, Path(scratch), console)
        page = serve_page(Answerer(captioner, neighbours), run, examples, note, port, uploads)
        try:
            yield page
        finally:
            page.close(verbose=False)


def find_folder(run: str) -> Path | None:
    """Find the folder of a run that has its run file; ``None`` for what lies alone."""
    path = resolve(run, "trained captioner")
    return None if is_exported(path) else find_run(path).folder


def read_pairs(
    captioner: Captioner, folder: Path | None, file: Path, console: Console
) -> tuple[Neighbours | None, str]:
    """Read the synthetic pairs, or say why there are none."""
    if folder is None:
        return None, "Which pairs it learnt from is not known: no config.yaml of its run lies beside this captioner."
    try:
        data = build_data_part(folder, SyntheticDataModule)
        if data is None:
            return None, "It learnt from no synthetic pairs: the run's config.yaml names no shards of them."
        data.setup("fit")
        neighbours = Neighbours(captioner.module, data.make_train_pairs(), file)
        steps = neighbours.build()
        for _ in track(steps, "Reading the synthetic pairs", -(-len(neighbours.pairs) // 256), console=console):
            pass
    except (OSError, ValueError) as error:  # they may have been moved since; captions do not need them
        return None, f"The synthetic pairs that it learnt from cannot be read. {error}"
    return (
        neighbours,
        f"Found by its own visual tokens among {neighbours.num_pictures:,} pictures of {data.reader.folder}.",
    )


def save_examples(folder: Path | None, scratch: Path, console: Console) -> list[Path]:
    """Write the first validation pictures of a run as files, where there are some."""
    paths = []
    try:
        source: ImageTextSource | None = build_data_part(folder, ImageTextSource, ".val")  # type: ignore[type-abstract]
        if source is not None:
            source.load()
            for number in range(min(NUM_EXAMPLES, len(source))):
                paths.append(scratch / f"example-{number}.png")
                source.picture(number).save(paths[-1])
    except (OSError, ValueError) as error:
        console.print(f"There are no examples: {error}", soft_wrap=True)
        return []
    return paths


@contextmanager
def _uploads_in(folder: Path) -> Iterator[Path]:
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    try:
        yield folder
    finally:
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before
