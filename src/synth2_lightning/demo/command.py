"""Implementation of ``synth2 demo``."""

import os
import signal
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from synth2_lightning.datamodules.synthetic import SyntheticDataModule
from synth2_lightning.demo.answers import Answerer
from synth2_lightning.demo.neighbors import Neighbors
from synth2_lightning.demo.port import check_free_port
from synth2_lightning.demo.run_data import build_data_component
from synth2_lightning.export.captioner import Captioner, load
from synth2_lightning.export.folder import is_exported
from synth2_lightning.export.hub import locate_export
from synth2_lightning.export.runs import find_run
from synth2_lightning.interfaces import ImageTextSource
from synth2_lightning.io.console import MessageConsole
from synth2_lightning.io.extras import require_extra
from synth2_lightning.io.signals import keep_sigterm

NUM_EXAMPLES = 6


def serve_demo(
    run: str, port: int = 7860, device: torch.device | str | None = None, from_hub: Collection[str] = ()
) -> None:
    """Serve the demo page until the user stops it.

    Args:
        run: Folder of a run, a checkpoint, or an exported captioner.
        port: Port on the loopback address.
        device: As for :class:`~synth2_lightning.export.captioner.Captioner`.
        from_hub: As for :func:`~synth2_lightning.export.captioner.load`.

    Raises:
        FileNotFoundError: If the run does not exist.
        OSError: If gradio is not installed, or the port is taken.
        ValueError: If it is not the run of a captioner.
    """
    console = MessageConsole(stderr=True)
    with keep_sigterm():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM deletes uploads, too
        with open_demo(run, port, device, console, from_hub) as page:
            console.print(f"The demo is at {page.local_url}, on this machine only. Press Ctrl-C to stop it.")
            try:
                Event().wait()
            except KeyboardInterrupt:
                console.print("Stopped.")


@contextmanager
def open_demo(
    run: str, port: int, device: torch.device | str | None, console: Console, from_hub: Collection[str] = ()
) -> Iterator[Any]:
    """Context manager that serves the demo page; on exit the running answer ends, and uploaded images are deleted.

    Arguments and errors are those of :func:`serve_demo`; the console shows progress.
    """
    require_extra("gradio", "demo")
    require_extra("matplotlib", "demo")
    check_free_port(port)
    captioner = load(run, device, from_hub=from_hub)
    folder = find_folder(run)
    with (
        tempfile.TemporaryDirectory(prefix="synth2-demo-") as scratch,
        _uploads_in(Path(scratch) / "uploads") as uploads,
    ):
        from synth2_lightning.demo.page import serve_page

        neighbors, note = read_pairs(captioner, folder, Path(scratch) / "means.bin", console)
        examples = save_examples(folder, Path(scratch), console)
        answerer = Answerer(captioner, neighbors)
        page = serve_page(answerer, run, examples, note, port, uploads)
        try:
            yield page
        finally:
            page.close(verbose=False)
            answerer.close()


def find_folder(run: str) -> Path | None:
    """Return the folder of a run that has a run file; ``None`` for exports and single checkpoints."""
    path = locate_export(run)
    return None if is_exported(path) else find_run(path).folder


def read_pairs(captioner: Captioner, folder: Path | None, file: Path, console: Console) -> tuple[Neighbors | None, str]:
    """Return the index of the synthetic training pairs and a note; ``None`` and the reason if there are none."""
    if folder is None:
        return None, "The training data are unknown: there is no config.yaml of the run."
    try:
        data: SyntheticDataModule | None = build_data_component(folder, SyntheticDataModule)
        if data is None:
            return None, "The run was not trained on synthetic pairs: its config.yaml names no shards."
        data.setup("fit")
        neighbors = Neighbors(captioner.module, data.make_train_pairs(), file)
        steps = neighbors.build()
        for _ in track(steps, "Reading the synthetic pairs", -(-len(neighbors.pairs) // 256), console=console):
            pass
    except (OSError, ValueError) as error:  # they may have been moved; captions do not need them
        return None, f"The synthetic training pairs cannot be read. {error}"
    return neighbors, (
        f"Cosine similarity of the captioner's visual tokens, among {neighbors.num_images:,} images of "
        f"{data.reader.folder}."
    )


def save_examples(folder: Path | None, scratch: Path, console: Console) -> list[Path]:
    """Save the first validation images of a run, and return their paths; empty if there are none."""
    paths = []
    try:
        source: ImageTextSource | None = build_data_component(folder, ImageTextSource, ".val")
        if source is not None:
            source.load()
            for index in range(min(NUM_EXAMPLES, len(source))):
                paths.append(scratch / f"example-{index}.png")
                source.image(index).save(paths[-1])
    except (OSError, ValueError) as error:
        console.print(f"Example images cannot be read: {error}", soft_wrap=True)
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
