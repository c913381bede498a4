"""Upload of captioners, generators, caption sets and shards to the Hugging Face Hub."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from synth2_lightning.export.exported import save_captioner
from synth2_lightning.export.folder import CARD, is_exported
from synth2_lightning.export.hub import EXPORT_FILES
from synth2_lightning.generators.muse import GENERATOR_FILES
from synth2_lightning.io.hub import Kind, check_repository, upload
from synth2_lightning.io.locations import resolve
from synth2_lightning.modules.captioning import VisionLanguageModule
from synth2_lightning.shards.caption_set import CAPTIONS, REJECTED
from synth2_lightning.shards.manifest import FILE_NAME


class _Content(NamedTuple):
    kind: Kind
    files: tuple[str, ...]


def push_captioner(
    module: VisionLanguageModule,
    repository: str,
    license: str | None = None,
    cards: Sequence[str | Path] = (),
    private: bool = False,
    branch: str | None = None,
) -> str:
    """Upload a captioner of this process, and return the URL of the commit.

    Arguments and errors are those of :func:`~synth2_lightning.export.exported.save_captioner` and :func:`push_folder`.
    """
    check_repository(repository)
    with TemporaryDirectory() as scratch:
        folder = save_captioner(module, Path(scratch) / repository.partition("/")[2], license, cards)
        return push_folder(folder, repository, private, branch)


def push_folder(folder: str | Path, repository: str, private: bool = False, branch: str | None = None) -> str:
    """Upload an exported captioner, a generator, a caption set or shards, and return the URL of the commit.

    The first two are uploaded as a model, the others as a data set. Of a caption set, the raw answers of the language
    model are not uploaded.

    Args:
        folder: A folder that ``synth2 export``, ``synth2 fit`` or ``synth2 predict`` wrote.
        repository: ``OWNER/NAME``; created if it does not exist, as a public one by default.
        private: Whether a new repository is private.
        branch: Branch to upload to; created if it does not exist.

    Raises:
        FileNotFoundError: If the folder does not exist.
        OSError: If the Hub cannot be reached, or refuses the upload.
        ValueError: If the folder is none of these, or the name is not of the form ``OWNER/NAME``.
    """
    path = resolve(folder, "folder to upload")
    content = _find_content(path)
    return upload(path, repository, content.kind, content.files, private, branch)


def _find_content(folder: Path) -> _Content:
    if is_exported(folder):
        return _Content("model", EXPORT_FILES)
    if all((folder / name).is_file() for name in GENERATOR_FILES):
        return _Content("model", (*GENERATOR_FILES, CARD))
    if (folder / FILE_NAME).is_file():
        tables = (CAPTIONS, REJECTED) if (folder / CAPTIONS).is_file() else ("part-*.parquet",)
        return _Content("dataset", (FILE_NAME, CARD, *tables))
    raise ValueError(
        f"{folder} holds no exported captioner, generator, finished caption set or finished shards; expected a folder "
        "that `synth2 export`, `synth2 fit` or `synth2 predict` wrote. If a prediction was interrupted, run it again."
    )
